"""The page's figure as SVG: light enough to be drawn anew while one drags."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import plotting
from loraone_theory.explore.axes import Axis, fitted
from loraone_theory.explore.model import Curves, Result

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 36


class Panel(NamedTuple):
    """A record and how it is shown."""

    record: str
    title: str
    log: bool


PANELS = (
    Panel("loss", "training loss L", True),
    Panel("risk", "risk", True),
    Panel("error", "error ‖E‖ of the learned shift", True),
    Panel("left_alignment", "alignment of A with the gradient, 0 is aligned", False),
    Panel("singular_values", "singular values learned", False),
)


def figure(result: Result) -> str:
    """Panels and the key of the methods, as HTML."""
    panels = "".join(_panel(result, panel) for panel in PANELS)
    return (
        f'<div class="lab-figure">{_key(result)}<div class="lab-panels" tabindex="0" '
        f'role="region" aria-label="Curves">{panels}</div></div>'
    )


def _key(result: Result) -> str:
    entries = "".join(
        f'<li><svg width="34" height="10" aria-hidden="true"><line x1="1" x2="33" y1="5" y2="5" '
        f"{_stroke(curves.method)}/></svg> {escape(curves.method)}"
        f"{' (failed)' if curves.failed else ''}</li>"
        for curves in result.curves
    )
    theory = '<li><svg width="34" height="10" aria-hidden="true"><line x1="1" x2="33" y1="5" y2="5"'
    theory += (
        ' class="lab-theory" stroke="currentColor"/></svg> theory, in the method’s colour</li>'
    )
    return f'<ul class="lab-key" aria-label="Key">{entries}{theory}</ul>'


def _stroke(method: str) -> str:
    """Colour and dashes of a method, those of the library's figures."""
    style = plotting.method_style(method)
    colour = "currentColor" if style["color"] == plotting.BLACK else style["color"]
    return f'stroke="{colour}" stroke-dasharray="{_dashes(style)}"'


def _dashes(style: dict[str, Any]) -> str:
    if "marker" in style:
        return "1 3"
    line = style["linestyle"]
    return "none" if line == plotting.SOLID else " ".join(f"{1.5 * part:g}" for part in line[1])


def _panel(result: Result, panel: Panel) -> str:
    drawn = [c for c in result.curves if panel.record in c.records]
    lines = [(c, line) for c in drawn for line in c.lines if line.panel == panel.record]
    seen = [c.records[panel.record].ravel() for c in drawn]
    # A line of theory is shown as far as the curves go: it must not squeeze them.
    y = fitted(np.concatenate(seen) if seen else np.empty(0), log=panel.log)
    y = _room(y, [line.values for _, line in lines if line.label != "local rate"])
    x = Axis(0.0, float(result.settings.steps))
    name = f"lab-{panel.record}"
    what = "; ".join(_said(c, panel.record) for c in drawn)
    shapes = [*_frame(x, y)]
    for curves in drawn:
        shapes.append(_path(x, y, curves.steps, curves.records[panel.record], curves.method))
    for curves, line in lines:
        shapes.append(_path(x, y, line.steps, line.values, curves.method, line.label))
    labels = ", ".join(dict.fromkeys(line.label for _, line in lines))
    caption = f'<p class="lab-lines">dashed: {escape(labels)}</p>' if labels else ""
    axis = f"{'log' if y.log else 'linear'} {y.low!r} {y.high!r} {x.high!r}"
    return (
        f'<figure><figcaption id="{name}">{escape(panel.title)}</figcaption>'
        f'<svg role="img" aria-labelledby="{name}" aria-describedby="{name}-said" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" class="lab-panel" data-record="{panel.record}" '
        f'data-axis="{axis}" data-done="{result.done}">{"".join(shapes)}</svg>'
        f'{caption}<p id="{name}-said" class="lab-said">{escape(what)}</p></figure>'
    )


def _room(y: Axis, theory: list[np.ndarray]) -> Axis:
    """The axis with room for lines of theory within two decades, or twice the height."""
    for values in theory:
        known = values[np.isfinite(values) & (values > 0)]
        if y.log:
            known = known[(known > y.low / 100) & (known < y.high * 100)]
        else:
            known = known[known < 2 * y.high]
        if known.size:
            wider = fitted(known, log=y.log)
            y = Axis(min(y.low, wider.low), max(y.high, wider.high), y.log)
    return y


def _said(curves: Curves, record: str) -> str:
    values = curves.records[record]
    first, last = values[0].max(), values[-1].max()
    return f"{curves.method}: from {first:.3g} to {last:.3g}"


def _place(x: Axis, y: Axis, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    across = LEFT + (WIDTH - LEFT - RIGHT) * x.at(steps.astype(float))
    up = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y.at(values)
    return across, up


def _frame(x: Axis, y: Axis) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value, label in y.ticks():
        up = _place(x, y, np.zeros(1), np.array([value]))[1][0]
        yield f'<line x1="{LEFT}" x2="{right}" y1="{up:.1f}" y2="{up:.1f}" class="lab-grid"/>'
        yield f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{label}</text>'
    for value, label in x.ticks():
        across = _place(x, y, np.array([value]), np.zeros(1))[0][0]
        yield f'<text x="{across:.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>'
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" class="lab-frame"/>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">step t</text>'


def _path(
    x: Axis, y: Axis, steps: np.ndarray, values: np.ndarray, method: str, theory: str = ""
) -> str:
    """One path for all lines of (T, lines); it is broken where a value has no place."""
    across, up = _place(x, y, steps, values)
    parts: list[str] = []
    for line in up.T:
        inside = np.isfinite(line) & (line >= TOP - 1) & (line <= HEIGHT - BOTTOM + 1)
        pen = "M"
        for here, at, shown in zip(across, line, inside, strict=True):
            if shown:
                parts.append(f"{pen}{here:.2f} {at:.2f}")
            pen = "L" if shown else "M"
    drawn = _stroke(method)
    kind = "lab-curve"
    if theory:
        kind, drawn = "lab-theory", drawn.partition(" stroke-dasharray")[0]
    about = f'data-method="{escape(method)}" data-line="{escape(theory)}"'
    return f'<path d="{"".join(parts)}" class="{kind}" {drawn} {about}/>'
