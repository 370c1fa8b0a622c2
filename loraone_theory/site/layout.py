"""Where the boxes of a graph go: in columns, each to the right of all that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from statistics import fmean
from typing import NamedTuple

GAP_ACROSS, GAP_DOWN, SWEEPS = 56, 14, 12


class Box(NamedTuple):
    """A box of the graph: its size, and the boxes that it rests on."""

    width: float
    height: float
    uses: frozenset[str]


class Place(NamedTuple):
    """Upper left corner."""

    x: float
    y: float


def layers(uses: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """Column of each box: 0 where it rests on nothing, else one more than the furthest of these.

    >>> layers({"a": frozenset(), "b": frozenset("a"), "c": frozenset("ab")})
    {'a': 0, 'b': 1, 'c': 2}
    """
    found: dict[str, int] = {}
    for name in TopologicalSorter(_without_circles(uses)).static_order():
        found[name] = 1 + max((found[other] for other in uses[name] if other in found), default=-1)
    return {name: found[name] for name in uses}


def _without_circles(uses: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """The same, less what closes a circle: boxes hold several claims, which may cross."""
    kept = {name: set(others) & set(uses) - {name} for name, others in uses.items()}
    while True:
        try:
            TopologicalSorter(kept).prepare()
            return kept
        except CycleError as error:
            circle = error.args[1]
            kept[circle[1]].discard(circle[0])


def placed(boxes: Mapping[str, Box]) -> tuple[dict[str, Place], float, float]:
    """Places of the boxes, and the width and height of the whole.

    Columns are sorted again and again by the mean height of the neighbours, so that few lines
    cross, and then moved towards them as far as there is room.
    """
    column = layers({name: box.uses for name, box in boxes.items()})
    columns: list[list[str]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for name, number in column.items():
        columns[number].append(name)
    near = {name: [other for other in box.uses if other in boxes] for name, box in boxes.items()}
    for name, box in boxes.items():
        for other in box.uses:
            if other in boxes and other != name:
                near[other].append(name)
    centre = dict.fromkeys(boxes, 0.0)
    for names in columns:
        _stack(names, boxes, centre, None)
    for sweep in range(SWEEPS):
        for names in columns if sweep % 2 == 0 else reversed(columns):
            wish = {n: fmean([centre[o] for o in near[n]] or [centre[n]]) for n in names}
            names.sort(key=lambda name, wish=wish: wish[name])  # type: ignore[misc]
            _stack(names, boxes, centre, wish)
    return _corners(columns, boxes, centre)


def _stack(
    names: Sequence[str],
    boxes: Mapping[str, Box],
    centre: dict[str, float],
    wish: Mapping[str, float] | None,
) -> None:
    """Put a column's boxes below each other, near their wishes in the mean."""
    at, middles = 0.0, []
    for name in names:
        at += boxes[name].height / 2
        middles.append(max(at, wish[name]) if wish else at)
        at = middles[-1] + boxes[name].height / 2 + GAP_DOWN
    off = fmean(m - wish[n] for m, n in zip(middles, names, strict=True)) if wish else at / 2
    for name, middle in zip(names, middles, strict=True):
        centre[name] = middle - off


def _corners(
    columns: Sequence[Sequence[str]], boxes: Mapping[str, Box], centre: Mapping[str, float]
) -> tuple[dict[str, Place], float, float]:
    """The columns side by side, each from the top, so that no room is left empty there."""
    places: dict[str, Place] = {}
    x, bottom = 0.0, 0.0
    for names in columns:
        upper = {name: centre[name] - boxes[name].height / 2 for name in names}
        top = min(upper.values())
        for name in names:
            places[name] = Place(x, upper[name] - top)
            bottom = max(bottom, places[name].y + boxes[name].height)
        x += max(boxes[name].width for name in names) + GAP_ACROSS
    return places, max(x - GAP_ACROSS, 0.0), bottom
