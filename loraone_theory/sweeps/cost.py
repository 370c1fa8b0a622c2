"""How long a cell is expected to take, and how much memory: an order, and a forecast.

Seconds are a step's fixed cost and its multiplications, times how fast this kind of machine is;
where cells of the sweep are finished, their measured times say how fast this one is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from loraone_theory.sweeps import size
from loraone_theory.sweeps.cells import Cell, Cells

# Fitted once to one core of 2026: seconds of a cell, of a step, of drawing an instance, of a
# multiplication in a step, and of a drawn Gaussian with its share of Σ̂.
CELL, STEP, INSTANCE, PRODUCT, DRAWN = 5e-3, 1.2e-4, 2e-4, 1.2e-10, 1.2e-8


def seconds(settings: Mapping[str, Any], runs: int, instances: int) -> float:
    """Expected seconds of a cell of so many runs."""
    steps = _whole(settings, "steps")
    drawn = size.instance_bytes(settings) / 8
    return (
        CELL
        + steps * STEP
        + instances * (INSTANCE + DRAWN * drawn)
        + PRODUCT * steps * runs * _products(settings)
    )


def _whole(settings: Mapping[str, Any], name: str) -> int:
    given = settings.get(name, 1)
    return given if isinstance(given, int) else 1


def _products(settings: Mapping[str, Any]) -> float:
    """Multiplications of one step of one run."""
    d, k, r = (_whole(settings, name) for name in ("d", "k", "rank"))
    n = next(iter(size.counted(settings, ["measurements"]).values()), 0)
    n = n or _whole(settings, "measurements") * _whole(settings, "samples")
    ensemble = settings.get("ensemble")
    if ensemble in size.DENSE:
        return 4 * d * k * (min(n, d * k) + r)
    if ensemble is not None:
        return 4 * n * r + 4 * n * (ensemble in size.PAIRS) * (d + k) * r
    if "relative_shift" in settings:
        return 6.0 * n * (d + k) * r + 4 * n * k
    return 2 * d * d * r + 8 * d * r * min(k, 4 * r)


def memory(settings: Mapping[str, Any], runs: int, instances: int, records: int) -> int:
    """Expected bytes of a cell while it is computed."""
    d, k, r = (_whole(settings, name) for name in ("d", "k", "rank"))
    recorded = _whole(settings, "steps") // _whole(settings, "every") + 2
    per_run = 8 * (records * recorded + 8 * r * (d + k))
    return instances * size.instance_bytes(settings) + runs * per_run


def of(cell: Cell) -> float:
    """Expected seconds of a cell."""
    extra = 2.0 if cell.seeks else 1.0
    return extra * seconds(cell.settings, cell.runs, len(cell.seeds))


def of_all(cells: Cells) -> np.ndarray:
    """Expected seconds of every cell, (cells,), without making the cells."""
    return np.fromiter((of(cell) for cell in cells), dtype=np.float64, count=len(cells))


def order(expected: np.ndarray) -> np.ndarray:
    """The cells that take longest first, so that none of them is left for the end."""
    return np.argsort(-expected, kind="stable")


def speed(pairs: list[tuple[float, float]]) -> float:
    """How much longer cells take than expected, the median over (expected, measured) seconds.

    >>> speed([(1.0, 2.0), (1.0, 3.0), (2.0, 2.0)])
    2.0
    """
    if not pairs:
        return 1.0
    return float(np.median([measured / expected for expected, measured in pairs]))


def in_words(value: float) -> str:
    """Seconds as one reads them.

    >>> in_words(0.25), in_words(75), in_words(8000)
    ('0.25 s', '1 min 15 s', '2 h 13 min')
    """
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{math.floor(minutes / 60)} h {minutes % 60} min"
