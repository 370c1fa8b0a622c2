"""What the page says in words: a table of the runs, and what is not predicted and why."""

from __future__ import annotations

from html import escape

import numpy as np

from loraone_theory.explore.model import Curves, Result

HEADING = (
    '<h1 class="lab-title">Laboratory</h1><p class="lab-intro">Every curve is a run of the '
    "library, every dashed line a prediction of it. Where nothing is predicted, the reason stands "
    "below the figure.</p>"
)
HEADINGS = ("method", "step η", "loss at the end", "predicted floor", "predicted rate", "status")


def refusal(message: str) -> str:
    """A sentence in place of the figure: settings of which nothing can be made."""
    return f'<p class="lab-refusal" role="alert">{escape(message)}</p>'


def code(script: str) -> str:
    """The script, with the button that copies it."""
    return (
        '<div class="lab-code"><h2>The same as code</h2><p><button type="button" id="lab-copy">'
        'Copy as code</button> <span id="lab-copied" role="status"></span> A script that gives '
        "these numbers, to the last bit.</p>"
        '<pre id="lab-code" tabindex="0" role="region" aria-label="The script">'
        f"{escape(script)}</pre></div>"
    )


def table(result: Result) -> str:
    """A row for each method, then the notes, as HTML."""
    rows = "".join(_row(result, curves) for curves in result.curves)
    rows += "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td colspan="{len(HEADINGS) - 1}">not defined here: {escape(why)}</td></tr>'
        for name, why in result.refusals.items()
    )
    head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
    notes = "".join(_notes(curves) for curves in result.curves)
    return (
        f'<div class="lab-words"><div class="lab-scroll" tabindex="0" role="region" '
        f'aria-label="Runs and predictions"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notes}</div>"
    )


def _row(result: Result, curves: Curves) -> str:
    ahead = result.settings.outlook(curves.method)
    cells = (
        f"{curves.learning_rate:.4g}",
        _range(curves.records["loss"][-1]),
        _range(ahead.floor),
        _range(ahead.loss_rate(curves.learning_rate)),
        " ".join(curves.status),
    )
    inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(curves.method)}</th>{inside}</tr>'


def _range(values: np.ndarray) -> str:
    """The value, or the least and the largest over the seeds; a dash where there is none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "–"
    low, high = f"{known.min():.3g}", f"{known.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _notes(curves: Curves) -> str:
    if not curves.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in curves.notes)
    return f"<h2>{escape(curves.method)}: what theory does not say here</h2><ul>{items}</ul>"
