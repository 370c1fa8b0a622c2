"""How long a cell is expected to take, and how much memory: an order, and a forecast.

Seconds are a step's fixed cost and its multiplications, times how fast this kind of machine is;
where cells of the sweep are finished, their measured times say how fast this one is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import methods
from loraone_theory.methods import Method
from loraone_theory.methods.rules import Local
from loraone_theory.predict.tuning import GRID
from loraone_theory.sweeps import size
from loraone_theory.sweeps.cells import Cell, Cells
from loraone_theory.sweeps.pilot import PILOT_SEEDS

# Fitted to one core of 2026: seconds of a cell, of an instance, of a drawn number with its share of
# what is made of it, and of a record at one step of one run.
CELL, INSTANCE, DRAWN, RECORD = 4e-3, 1e-4, 1.2e-8, 7e-7
# What a step takes longer where the rule inverts matrices, and where it has no closed form of its
# own; and the prediction of a learning rate.
INVERSES, ENTRYWISE, PREDICTION = 5e-4, 1e-4, 2e-2


class Kind(NamedTuple):
    """What a step costs in one kind of problem.

    Args:
        step: seconds of a step, however many runs it has.
        product: seconds of a multiplication.
        products: (d, k, rank, samples or measurements) -> multiplications of one run.
    """

    step: float
    product: float
    products: Callable[[int, int, int, int], float]


LINEAR = Kind(2.2e-5, 1e-10, lambda d, k, r, n: d * d * r + 5000)
RELU = Kind(1.4e-4, 1.7e-9, lambda d, k, r, n: n * (d + k) * r + n * k)
KINDS = {
    "dense": Kind(2e-4, 4e-9, lambda d, k, r, n: n * d * k),
    "symmetric": Kind(2e-4, 4e-9, lambda d, k, r, n: n * d * k),
    "rank-one": Kind(2e-4, 2e-9, lambda d, k, r, n: n * (d + k) * r),
    "single-response": Kind(2e-4, 2e-9, lambda d, k, r, n: n * (d + k) * r),
    "multi-response": Kind(1.7e-4, 5e-9, lambda d, k, r, n: n / k * (d + k) * r),
    "completion": Kind(2.8e-4, 3e-7, lambda d, k, r, n: n * r),
}


def seconds(settings: Mapping[str, Any], runs: int, instances: int) -> float:
    """Expected seconds of a cell of so many runs."""
    steps, d, k, r = (_whole(settings, name) for name in ("steps", "d", "k", "rank"))
    usual = RELU if "relative_shift" in settings else LINEAR
    kind = KINDS.get(settings.get("ensemble", ""), usual)
    n = next(iter(size.counted(settings, ["measurements"]).values()), 0)
    n = n or _whole(settings, "measurements") * _whole(settings, "samples")
    drawn = size.instance_bytes(settings) / 8
    each = kind.step + runs * kind.product * kind.products(d, k, r, n)
    recorded = runs * RECORD / _whole(settings, "every")
    return CELL + instances * (INSTANCE + DRAWN * drawn) + steps * (each + recorded)


def _whole(settings: Mapping[str, Any], name: str) -> int:
    given = settings.get(name, 1)
    return given if isinstance(given, int) and given > 0 else 1


def memory(settings: Mapping[str, Any], runs: int, instances: int, records: int) -> int:
    """Expected bytes of a cell while it is computed."""
    d, k, r = (_whole(settings, name) for name in ("d", "k", "rank"))
    recorded = _whole(settings, "steps") // _whole(settings, "every") + 2
    per_run = 8 * (records * recorded + 8 * r * (d + k))
    return instances * size.instance_bytes(settings) + runs * per_run


def of(cell: Cell) -> float:
    """Expected seconds of a cell; with a learning rate to be found, of its pilot too."""
    given = cell.settings["method"]
    law = given.facts.local if isinstance(given, Method) else _local(given["name"])
    slower = ENTRYWISE if law is None else 0.0 if law.weights == "none" else INVERSES
    steps = _whole(cell.settings, "steps")
    found = seconds(cell.settings, cell.runs, len(cell.seeds)) + steps * slower
    if not cell.seeks:
        return found
    pilots = len(PILOT_SEEDS)
    runs = pilots * len(GRID) if law is None else pilots  # without a prediction all are tried
    own = {**cell.settings, "every": 1}
    return found + PREDICTION + seconds(own, runs, pilots) + steps * slower


@functools.cache
def _local(name: str) -> Local | None:
    return methods.get(name).facts.local


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
