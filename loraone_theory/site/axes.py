"""Scales of a figure: where a value goes, and which values have a tick."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from loraone_theory.plotting import round_ticks

# From how large a ratio on, positive values are drawn on a logarithmic scale.
WIDE = 30.0
# How far beyond what has to be seen a scale may reach, in widths of that.
FAR = 12.0


class Scale(NamedTuple):
    """A map of values to places.

    Args:
        low, high: the values at its ends.
        log: whether it is logarithmic.
        start, end: the places of the ends.
    """

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Places of values; those beyond an end, and those that are no number, go to an end."""
        given = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        given = np.clip(np.where(np.isnan(given), np.inf, given), low, high)
        if self.log:
            given, low, high = np.log(given), math.log(low), math.log(high)
        return self.start + (given - low) / (high - low) * (self.end - self.start)

    def beyond(self, values: np.ndarray) -> int:
        """How many values have no place of their own."""
        return int((~((values >= self.low) & (values <= self.high))).sum())

    def ticks(self) -> list[float]:
        """Round values within.

        >>> Scale(0.0, 1.0, False, 0, 100).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> Scale(1e-3, 1e3, True, 0, 100).ticks()
        [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]
        """
        return _decades(self.low, self.high) if self.log else round_ticks(self.low, self.high)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 7))
    return [10.0**power for power in range(first, last + 1, every)]


def scale(
    core: np.ndarray, more: np.ndarray, start: float, end: float, *, log: bool | None = None
) -> Scale:
    """A scale that shows all of `core`, and of `more` what is not too far off.

    Args:
        core: values that have to be seen.
        more: values that may lie beyond the end.
        start, end: the places of the ends.
        log: whether it is logarithmic; by default where all is positive and far apart.
    """
    core, more = core[np.isfinite(core)], more[np.isfinite(more)]
    both = np.concatenate([core, more])
    if not len(both):
        return Scale(0.0, 1.0, False, start, end)
    positive = both[both > 0]
    if log is None:
        log = len(positive) == len(both) and both.max() > WIDE * both.min()
    if log and len(positive):
        low, high = float(positive.min()), float(positive.max())
        return Scale(low / 1.5, high * 1.5, True, start, end)
    core = core if len(core) else more
    width = float(np.ptp(core)) or max(abs(float(core[0])), 1e-12)
    low = max(float(both.min()), float(core.min()) - FAR * width)
    high = min(float(both.max()), float(core.max()) + FAR * width)
    room = 0.04 * (high - low) or 0.5 * width
    return Scale(low - room, high + room, False, start, end)


def shown(value: float) -> str:
    """A number as a tick or in a sentence.

    >>> shown(0.25), shown(1e-16), shown(12345.6)
    ('0.25', '1e−16', '1.23e+4')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:.3g}"
    if "e" in text:
        digits, _, power = text.partition("e")
        text = f"{digits}e{'+' if int(power) > 0 else ''}{int(power)}"
    return text.replace("-", "−")
