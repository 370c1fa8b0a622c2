"""What the page says in words: a table of the runs, and what is not predicted and why."""

from __future__ import annotations

import numpy as np

from loraone_theory.core.html import Html, escaped, joined, tag
from loraone_theory.explore.model import Curves, Result

HEADING = (
    '<h1 class="lab-title">Laboratory</h1><p class="lab-intro">Every curve is a run of the '
    "library, every dashed line a prediction of it. Where nothing is predicted, the reason stands "
    "below the figure.</p>"
)
HEADINGS = ("method", "step η", "loss at the end", "predicted floor", "predicted rate", "status")


def refusal(message: str) -> str:
    """A sentence in place of the figure: settings of which nothing can be made."""
    return str(tag("p", message, class_="lab-refusal", role="alert"))


def code(script: str) -> str:
    """The script, with the button that copies it."""
    return (
        '<div class="lab-code"><h2>The same as code</h2><p><button type="button" id="lab-copy">'
        'Copy as code</button> <span id="lab-copied" role="status"></span> A script that gives '
        "these numbers, to the last bit.</p>"
        '<pre id="lab-code" tabindex="0" role="region" aria-label="The script">'
        f"{escaped(script)}</pre></div>"
    )


def table(result: Result) -> str:
    """A row for each method, then the notes, as HTML."""
    rows = [_row(result, curves) for curves in result.curves]
    rows += [_line(name, f"not defined here: {why}") for name, why in result.refusals.items()]
    head = tag("tr", *(tag("th", heading, scope="col") for heading in HEADINGS))
    inside = tag(
        "div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="lab-scroll",
        tabindex="0", role="region", aria_label="Runs and predictions",
    )  # fmt: skip
    return str(tag("div", inside, *map(_notes, result.curves), class_="lab-words"))


def _row(result: Result, curves: Curves) -> Html:
    ahead = result.settings.outlook(curves.method)
    return _line(
        curves.method,
        f"{curves.learning_rate:.4g}",
        _range(curves.records["loss"][-1]),
        _range(ahead.floor),
        _range(ahead.loss_rate(curves.learning_rate)),
        " ".join(curves.status),
    )


def _line(method: str, *cells: str) -> Html:
    """A line of the table, whose last cell takes what is left of it."""
    first = [tag("td", cell) for cell in cells[:-1]]
    left = len(HEADINGS) - len(cells)
    last = tag("td", cells[-1], colspan=left if left > 1 else None)
    return tag("tr", tag("th", method, scope="row"), *first, last)


def _range(values: np.ndarray) -> str:
    """The value, or the least and the largest over the seeds; a dash where there is none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "–"
    low, high = f"{known.min():.3g}", f"{known.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _notes(curves: Curves) -> Html:
    if not curves.notes:
        return Html("")
    heading = tag("h2", f"{curves.method}: what theory does not say here")
    return joined([heading, tag("ul", *(tag("li", note) for note in curves.notes))])
