"""Axes of a panel: which part is shown, where a value lies, and where the ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from loraone_theory.plotting import round_ticks

DECADES = 34  # at most, below the largest value: what lies under it is rounding
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high`.

    Args:
        low: the least value shown.
        high: the largest.
        log: whether equal steps are equal ratios.
    """

    low: float
    high: float
    log: bool = False

    def at(self, values: np.ndarray) -> np.ndarray:
        """Where they lie, 0 at `low` and 1 at `high`; NaN for what has no place.

        >>> Axis(1e-2, 1e2, log=True).at(np.array([1.0, 0.0]))
        array([0.5, nan])
        """
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = np.log10(np.where(values > 0, values, math.nan))
        low, high = math.log10(self.low), math.log10(self.high)
        return (whole - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their labels.

        >>> [label for _, label in Axis(0.0, 400.0).ticks()]
        ['0', '100', '200', '300', '400']
        """
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            step = max(1, -(-(last - first) // TICKS))
            return [(10.0**p, f"1e{p}" if p else "1") for p in range(last, first - 1, -step)]
        return [(value, f"{value:.6g}") for value in round_ticks(self.low, self.high, TICKS)]


def fitted(values: np.ndarray, *, log: bool) -> Axis:
    """The axis that shows all of `values`, at most `DECADES` of a logarithmic one.

    >>> fitted(np.array([0.0, 3.0, 40.0]), log=True)
    Axis(low=1.0, high=100.0, log=True)
    >>> fitted(np.array([0.0, 0.3, np.nan]), log=False)
    Axis(low=0.0, high=0.315, log=False)
    """
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return Axis(0.1, 1.0, log=True) if log else Axis(0.0, 1.0)
    if not log:
        return Axis(0.0, float(f"{1.05 * known.max():.4g}"))
    high = math.ceil(math.log10(known.max()))
    low = max(math.floor(math.log10(known.min())), high - DECADES)
    return Axis(10.0 ** min(low, high - 1), 10.0**high, log=True)
