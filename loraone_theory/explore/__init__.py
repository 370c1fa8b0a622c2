"""The laboratory of `loraone explore`: settings in, curves with their theory and a script out.

`settings`, `model`, `theory` and `script` know no browser; `plot` draws their curves as SVG, `app`
is the page.
"""
