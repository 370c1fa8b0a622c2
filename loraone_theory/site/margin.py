"""The margin of a claim as a figure: what was measured against what was promised, draw by draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from loraone_theory.claims.sampled import Sample, Side
from loraone_theory.core.html import Html, joined, label, line, tag
from loraone_theory.site.axes import Scale, scale, shown

WIDTH, LEFT, RIGHT = 480, 66, 14
_GOLDEN = 0.6180339887498949


class Terms(NamedTuple):
    """What is compared with what, in numbers and in words.

    Args:
        value: of a draw -> what was measured.
        limit: of a draw -> what it must not exceed, or be near to.
        measured, promised: the names of these.
        two_sided: whether the limit is one from above and from below, `slack` off.
        log: whether only a logarithmic scale tells the values apart.
    """

    value: Any
    limit: Any
    measured: str
    promised: str
    two_sided: bool = False
    log: bool | None = None


TERMS = {
    "identity": Terms(
        lambda s: np.abs(s.lhs - s.rhs), lambda s: s.tolerance,
        "|measured − promised|", "tolerance", log=True,
    ),
    "bound": Terms(lambda s: s.lhs, lambda s: s.rhs + s.tolerance, "measured", "bound"),
    "probability": Terms(lambda s: s.lhs, lambda s: s.rhs + s.tolerance, "measured", "bound"),
    "value": Terms(lambda s: s.lhs, lambda s: s.rhs, "measured", "promised", two_sided=True),
}  # fmt: skip


# Of limits, where they have one of their own, and of what was measured.
Scales = tuple[Scale | None, Scale]
# With its height.
Drawn = tuple[Html, int, Scales]


class Figure(NamedTuple):
    """An SVG, and what has to be said below it."""

    svg: Html
    notes: tuple[str, ...]


def figure(sample: Sample, kind: str, worst: dict[str, Any]) -> Figure:
    """The figure, with its text alternative: lanes where all draws have one limit, else a plane.

    Args:
        sample: the draws.
        kind: of the claim.
        worst: the worst draw, of the verdict's record; may be empty.
    """
    terms = TERMS[kind]
    one = all(_one_limit(terms.limit(side), terms.value(side), terms) for side in sample)
    drawing, height, scales = (_lanes if one else _plane)(sample, terms, _worst_of(sample, worst))
    words = described(sample, terms)
    svg = tag(
        "svg", tag("title", "Draws against what is promised"), tag("desc", words), drawing,
        viewBox=f"0 0 {WIDTH} {height}", role="img", class_="margin", aria_label=words,
    )  # fmt: skip
    return Figure(svg, _notes(sample, terms, scales))


def _notes(sample: Sample, terms: Terms, scales: Scales) -> tuple[str, ...]:
    notes = []
    for name, side in (("", sample.claim), (" of the mutant", sample.mutant)):
        limit, value = terms.limit(side), terms.value(side)
        both = zip(scales, (limit, value), strict=True)
        if beyond := max(scale.beyond(places) for scale, places in both if scale is not None):
            notes.append(f"{beyond} draws{name} lie beyond the scale and are drawn at its end.")
        if len(side.lhs) < side.of:
            kept = "every so many" + ("" if name else ", and the worst")
            notes.append(f"{len(side.lhs)} of {side.of} draws{name} are shown: {kept}.")
    return tuple(notes)


def _worst_of(sample: Sample, worst: dict[str, Any]) -> Side | None:
    """The worst draw, with the tolerance of the draw in the sample that is nearest to it."""
    if not worst:
        return None
    lhs, rhs = np.array([worst["lhs"]]), np.array([worst["rhs"]])
    away = _apart(sample.claim.lhs, lhs) + _apart(sample.claim.rhs, rhs)
    near = int(np.argmin(np.where(np.isnan(away), np.inf, away)))
    return Side(lhs, rhs, sample.claim.tolerance[[near]], np.array([True]), 1, worst["lhs"])


def _apart(values: np.ndarray, value: np.ndarray) -> np.ndarray:
    """|values − value|, with ∞ − ∞ = 0: bounds of draws that say nothing are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(values == value, 0.0, np.abs(values - value))


def _one_limit(limit: np.ndarray, value: np.ndarray, terms: Terms) -> bool:
    """Whether the limits of the draws are one number, as far as the figure can tell."""
    limit = limit[np.isfinite(limit)]
    if not len(limit):
        return True
    if terms.log:
        return bool(limit.max() <= 1.05 * limit.min())
    return bool(np.ptp(limit) <= 0.05 * np.ptp([*limit, *value[np.isfinite(value)]]))


def described(sample: Sample, terms: Terms) -> str:
    """The figure in words."""
    parts = []
    for name, side in (("the claim", sample.claim), ("its mutant", sample.mutant)):
        value = terms.value(side)
        value = value[np.isfinite(value)]
        count = f"{len(side.lhs)} of {side.of}" if len(side.lhs) < side.of else f"{side.of}"
        if len(value):
            low, high = shown(float(value.min())), shown(float(value.max()))
            parts.append(f"{count} draws of {name}: {terms.measured} from {low} to {high}")
        else:
            parts.append(f"{count} draws of {name}, none of them a number")
    limit = terms.limit(sample.claim)
    limit = limit[np.isfinite(limit)]
    if len(limit):
        low, high = shown(float(limit.min())), shown(float(limit.max()))
        parts.append(f"{terms.promised} {low}" + (f" to {high}" if low != high else ""))
    if terms.two_sided:
        parts.append(f"allowance {shown(float(np.min(sample.claim.tolerance)))} for the mean")
    return "; ".join(parts) + "."


def _dots(x: np.ndarray, y: np.ndarray, class_: str) -> Html:
    """Round dots in one path: lines of no length with round ends."""
    if not len(x):
        return Html("")
    points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return tag("path", d=points, class_=class_)


def _crosses(x: np.ndarray, y: np.ndarray) -> Html:
    if not len(x):
        return Html("")
    points = "".join(
        f"M{a - 2.5:.1f} {b - 2.5:.1f}l5 5m0-5l-5 5" for a, b in zip(x, y, strict=True)
    )
    return tag("path", d=points, class_="mutant")


def _below(across: Scale, bottom: float, name: str) -> Html:
    """The axis at the bottom."""
    parts = [line(across.start, bottom, across.end, bottom, "axis")]
    for value in across.ticks():
        x = float(across(value))
        parts.append(line(x, bottom, x, bottom + 4, "axis"))
        parts.append(label(x, bottom + 17, shown(value), text_anchor="middle"))
    middle = (across.start + across.end) / 2
    parts.append(label(middle, bottom + 36, name, text_anchor="middle", class_="name"))
    return joined(parts)


def _lanes(sample: Sample, terms: Terms, worst: Side | None) -> Drawn:
    """Claim above, mutant below, each with its limit."""
    height, top, lane, bottom = 236, 24, 56, 186
    sides = [terms.value(sample.claim), terms.value(sample.mutant)]
    reach = [_reach(sample.claim, terms), _reach(sample.mutant, terms)]
    core = np.concatenate([sides[0], np.concatenate(reach)])
    across = scale(core, sides[1], LEFT, WIDTH - RIGHT, log=terms.log)
    parts = []
    for i, (name, side) in enumerate((("claim", sample.claim), ("mutant", sample.mutant))):
        upper = top + i * (lane + 24)
        centre = upper + lane / 2
        parts.append(_promise(across, reach[i], _label(side, terms), upper, lane))
        x, y = (
            across(sides[i]),
            centre + (np.arange(len(sides[i])) * _GOLDEN % 1 - 0.5) * (lane - 12),
        )
        if name == "claim":
            parts.append(_dots(x[side.inside], y[side.inside], "draw"))
            parts.append(_dots(x[~side.inside], y[~side.inside], "draw outside"))
        else:
            parts.append(_crosses(x, y))
        parts.append(label(LEFT - 10, centre + 4, name, text_anchor="end"))
        if terms.two_sided and np.isfinite(side.mean):
            mean = float(across(side.mean))
            parts.append(line(mean, upper + 2, mean, upper + lane - 2, f"mean {name}"))
    if worst is not None:
        parts.append(_ring(float(across(terms.value(worst))[0]), top + lane / 2, lane / 2 - 2))
    parts.append(_below(across, bottom, terms.measured))
    return joined(parts), height, (None, across)


def _reach(side: Side, terms: Terms) -> np.ndarray:
    """The ends of where the draws, or their mean, may lie; one end where the other is open."""
    limit = float(np.median(terms.limit(side)))
    if not terms.two_sided:
        return np.array([limit])
    band = float(np.min(side.tolerance))
    return np.array([limit - band, limit, limit + band])


def _label(side: Side, terms: Terms) -> str:
    """The limit in words."""
    limits = side.tolerance if terms.log else side.rhs
    low, high = shown(float(limits.min())), shown(float(limits.max()))
    band = float(np.min(side.tolerance)) if terms.two_sided else 0.0
    text = f"{terms.promised} {low}" + (f" to {high}" if low != high else "")
    return text + (f" ± {shown(band)}" if band else "")


def _ring(x: float, y: float, reach: float) -> Html:
    """The worst draw: a ring, with a line through its lane so that it is found among many."""
    ring = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="6", class_="worst")
    return joined([line(x, y - reach, x, y + reach, "worst-line"), ring])


def _promise(across: Scale, reach: np.ndarray, words: str, top: float, lane: float) -> Html:
    """Where the draws of a lane may lie, and the limit."""
    places = across(reach)
    low, high = (across.start, places[0]) if len(reach) == 1 else (places[0], places[-1])
    at = float(places[len(reach) // 2])
    ends = "end" if at > WIDTH * 0.7 else "start" if at < WIDTH * 0.4 else "middle"
    return joined(
        [
            tag("rect", x=f"{low:.1f}", y=top, width=f"{max(float(high - low), 0.0):.1f}",
                height=lane, class_="allowed"),
            line(at, top - 3, at, top + lane, "limit"),
            label(at, top - 8, words, text_anchor=ends, class_="name"),
        ]
    )  # fmt: skip


def _plane(sample: Sample, terms: Terms, worst: Side | None) -> Drawn:
    """Measured upwards, promised to the right; the diagonal is the limit."""
    height, top, bottom = 338, 24, 288
    claim, mutant = sample.claim, sample.mutant
    x, y = [[f(side) for side in (claim, mutant)] for f in (terms.limit, terms.value)]
    across = scale(x[0], x[1], LEFT, WIDTH - RIGHT)
    core = np.concatenate([y[0], x[0]]) if not terms.log else y[0]
    log = True if terms.log else across.log and bool((core > 0).all())
    if terms.log:
        across = scale(x[0], x[1], LEFT, WIDTH - RIGHT, log=True)
    upwards = scale(np.concatenate([core, x[0]]), y[1], bottom, top, log=log)
    parts = [_diagonal(across, upwards)]
    parts.append(_dots(across(x[0])[claim.inside], upwards(y[0])[claim.inside], "draw"))
    out = ~claim.inside
    parts.append(_dots(across(x[0])[out], upwards(y[0])[out], "draw outside"))
    parts.append(_crosses(across(x[1]), upwards(y[1])))
    if worst is not None:
        place = across(terms.limit(worst))[0], upwards(terms.value(worst))[0]
        parts.append(_ring(float(place[0]), float(place[1]), 16))
    parts.append(line(LEFT, top, LEFT, bottom, "axis"))
    for value in upwards.ticks():
        y_tick = float(upwards(value))
        parts.append(line(LEFT - 4, y_tick, LEFT, y_tick, "axis"))
        parts.append(label(LEFT - 8, y_tick + 4, shown(value), text_anchor="end"))
    parts.append(label(4, top - 11, terms.measured, class_="name"))
    parts.append(_below(across, bottom, terms.promised))
    return joined(parts), height, (across, upwards)


def _diagonal(across: Scale, upwards: Scale) -> Html:
    """Measured = promised, as far as it can be seen, and the side on which draws may lie."""
    ends = (across.low, across.high)
    values = np.geomspace(*ends, 40) if across.log else np.linspace(*ends, 40)
    x, y = across(values), upwards(values)
    edge = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    area = f"M{edge}L{across.end:.1f} {upwards.start:.1f}L{across.start:.1f} {upwards.start:.1f}Z"
    return joined(
        [tag("path", d=area, class_="allowed"), tag("path", d=f"M{edge}", class_="limit")]
    )
