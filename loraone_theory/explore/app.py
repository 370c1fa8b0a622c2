# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The page of `loraone explore`, a marimo app: controls, and beside them what they give."""

# mypy: disable-error-code="no-untyped-def"

import marimo

app = marimo.App(
    width="full", app_title="loraone explore", css_file="page.css", html_head_file="head.html"
)

with app.setup:
    import marimo as mo

    from loraone_theory.explore import controls, words
    from loraone_theory.explore.model import grow
    from loraone_theory.explore.plot import figure
    from loraone_theory.explore.script import script


@app.cell
def title():
    """What the page is."""
    mo.output.replace(mo.Html(words.HEADING))


@app.cell
def pick_model():
    """The choice that the other controls depend on."""
    model = controls.model()
    return (model,)


@app.cell
def pick(model):
    """The controls of the model, at its start."""
    chosen = controls.controls(model.value)
    return (chosen,)


@app.cell
def control_panel(chosen, model):
    """Where the controls stand."""
    mo.output.replace(controls.laid_out(model, chosen))


@app.cell
def drawn(chosen, model):
    """The curves: again and again as the runs go on, the whole at the end."""
    result = None
    try:
        for result in grow(controls.settings(model.value, chosen.value)):
            mo.output.replace(mo.Html(figure(result)))
    except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
        result = None
        mo.output.replace(mo.Html(words.refusal(str(error))))
    return (result,)


@app.cell
def said(result):
    """The table and what is not predicted."""
    mo.output.replace(mo.Html(words.table(result) if result is not None else ""))


@app.cell
def copied(result):
    """The script."""
    mo.output.replace(mo.Html(words.code(script(result)) if result is not None else ""))


if __name__ == "__main__":
    app.run()
