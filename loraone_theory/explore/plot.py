"""The page's figure as SVG: light enough to be drawn anew while one drags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import plotting
from loraone_theory.core.html import Html, label, line, tag
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
    panels = [_panel(result, panel) for panel in PANELS]
    region = {"tabindex": "0", "role": "region", "aria_label": "Curves"}
    inside = tag("div", *panels, class_="lab-panels", **region)
    return str(tag("div", _key(result), inside, class_="lab-figure"))


def _key(result: Result) -> Html:
    entries = [
        _entry(f"{curves.method}{' (failed)' if curves.failed else ''}", **_stroke(curves.method))
        for curves in result.curves
    ]
    theory = {"class_": "lab-theory", "stroke": "currentColor"}
    entries.append(_entry("theory, in the method’s colour", **theory))
    return tag("ul", *entries, class_="lab-key", aria_label="Key")


def _entry(words: str, **stroke: str) -> Html:
    sample = tag("line", x1=1, x2=33, y1=5, y2=5, **stroke)
    return tag("li", tag("svg", sample, width=34, height=10, aria_hidden="true"), " ", words)


def _stroke(method: str) -> dict[str, str]:
    """Colour and dashes of a method, those of the library's figures."""
    style = plotting.method_style(method)
    colour = "currentColor" if style["color"] == plotting.BLACK else style["color"]
    return {"stroke": colour, "stroke_dasharray": _dashes(style)}


def _dashes(style: dict[str, Any]) -> str:
    if "marker" in style:
        return "1 3"
    line = style["linestyle"]
    return "none" if line == plotting.SOLID else " ".join(f"{1.5 * part:g}" for part in line[1])


def _panel(result: Result, panel: Panel) -> Html:
    drawn = [c for c in result.curves if panel.record in c.records]
    lines = [(c, line) for c in drawn for line in c.lines if line.panel == panel.record]
    seen = [c.records[panel.record].ravel() for c in drawn]
    # A line of theory is shown as far as the curves go: it must not squeeze them.
    y = fitted(np.concatenate(seen) if seen else np.empty(0), log=panel.log)
    y = _room(y, [line.values for _, line in lines if line.label != "local rate"])
    x = Axis(0.0, float(result.settings.steps))
    name = f"lab-{panel.record}"
    shapes = [*_frame(x, y)]
    for curves in drawn:
        shapes.append(_path(x, y, curves.steps, curves.records[panel.record], curves.method))
    for curves, theory in lines:
        shapes.append(_path(x, y, theory.steps, theory.values, curves.method, theory.label))
    labels = ", ".join(dict.fromkeys(line.label for _, line in lines))
    caption = tag("p", f"dashed: {labels}", class_="lab-lines") if labels else ""
    svg = tag(
        "svg", *shapes, role="img", aria_labelledby=name, aria_describedby=f"{name}-said",
        viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="lab-panel", data_record=panel.record,
        data_axis=f"{'log' if y.log else 'linear'} {y.low!r} {y.high!r} {x.high!r}",
        data_done=result.done,
    )  # fmt: skip
    said = "; ".join(_said(c, panel.record) for c in drawn)
    said = tag("p", said, id=f"{name}-said", class_="lab-said")
    return tag("figure", tag("figcaption", panel.title, id=name), svg, caption, said)


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


def _frame(x: Axis, y: Axis) -> Iterator[Html]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value, words in y.ticks():
        up = float(_place(x, y, np.zeros(1), np.array([value]))[1][0])
        yield line(LEFT, up, right, up, "lab-grid")
        yield label(LEFT - 6, up + 4, words, text_anchor="end")
    for value, words in x.ticks():
        across = float(_place(x, y, np.array([value]), np.zeros(1))[0][0])
        yield label(across, bottom + 15, words, text_anchor="middle")
    yield tag("path", d=f"M{LEFT} {TOP}V{bottom}H{right}", class_="lab-frame")
    yield label((LEFT + right) / 2, HEIGHT - 4, "step t", text_anchor="middle")


def _path(
    x: Axis, y: Axis, steps: np.ndarray, values: np.ndarray, method: str, theory: str = ""
) -> Html:
    """One path for all lines of (T, lines); it is broken where a value has no place."""
    across, up = _place(x, y, steps, values)
    parts: list[str] = []
    for curve in up.T:
        inside = np.isfinite(curve) & (curve >= TOP - 1) & (curve <= HEIGHT - BOTTOM + 1)
        pen = "M"
        for here, at, shown in zip(across, curve, inside, strict=True):
            if shown:
                parts.append(f"{pen}{here:.2f} {at:.2f}")
            pen = "L" if shown else "M"
    stroke = _stroke(method)
    if theory:  # the dashes are those of its class
        stroke.pop("stroke_dasharray")
    return tag(
        "path", d="".join(parts), class_="lab-theory" if theory else "lab-curve", **stroke,
        data_method=method, data_line=theory,
    )  # fmt: skip
