# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The page of `loraone explore`, a marimo app: controls, and beside them what they give.

What a cell has and needs marimo reads from its body, not from its arguments and what it returns.
"""

# ruff: noqa: F821, RUF059
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
def control_panel(model):
    """The controls of the model, at its start; every one has to be a variable of its own."""
    _made = controls.controls(model.value)
    mo.output.replace(controls.laid_out(model, _made))
    (
        ensemble, methods, rank, true_rank, condition_number, ratio, infinite, noise_std,
        relative_shift, step, fraction, learning_rate, init_std, d, k, steps, trials, first,
    ) = _made  # fmt: skip


@app.cell
def drawn(model):
    """The curves: again and again as the runs go on, the whole at the end."""
    _chosen = controls.Controls(
        ensemble, methods, rank, true_rank, condition_number, ratio, infinite, noise_std,
        relative_shift, step, fraction, learning_rate, init_std, d, k, steps, trials, first,
    )  # fmt: skip
    result = None
    try:
        for result in grow(controls.settings(model.value, _chosen)):
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
