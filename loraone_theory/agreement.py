"""Whether data made again are the data kept: the largest relative difference, and how much may be.

Two processors sum in different orders, so the same run on both agrees to rounding, not in bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Entries below this share of the largest one of their array carry its rounding, and are compared
# relative to that share of it.
FLOOR = 1e-6
# Arrays of this name hold times taken, which no two runs share.
CLOCK = "seconds"


def tolerance(*, size: int, growth: float = 1.0, dtype: str = "float64") -> float:
    """size · eps · growth / FLOOR, the largest relative difference that rounding explains.

    An inner product of length `size`, summed in another order, moves by at most size · eps of the
    largest entry; the run multiplies that by `growth`; entries at the floor show it 1/FLOOR times.

    Args:
        size: the longest sum, d or N.
        growth: what a perturbation of the start is multiplied by until the end, at most.
        dtype: of the simulations.

    >>> round(tolerance(size=100, growth=10.0), 9)
    2.22e-07
    """
    return size * float(np.finfo(dtype).eps) * growth / FLOOR


# For a script that states none: sums of 100 terms, nothing magnified.
USUAL = tolerance(size=100)


@dataclass(frozen=True)
class Agreement:
    """Data made now against the data kept.

    Args:
        tolerance: the largest relative difference allowed.
        largest: the one found; None where nothing was compared.
        where: the array that has it, or why nothing was compared.
    """

    tolerance: float
    largest: float | None
    where: str

    @property
    def holds(self) -> bool:
        """False where something was compared and differs by more than is allowed."""
        return self.largest is None or self.largest <= self.tolerance

    def __str__(self) -> str:
        if self.largest is None:
            return f"not compared: {self.where}"
        if self.largest == 0:
            return "none"
        sign = "<=" if self.holds else ">"
        return f"{self.largest:.1e} {sign} {self.tolerance:.0e} ({self.where})"


def same_bits(made: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> bool:
    """Whether all arrays but clocks are equal, NaN where NaN is."""
    return difference(made, kept)[0] == 0


def difference(made: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The largest relative difference of any array but clocks, and the array that has it.

    |made − kept| / max(|kept|, FLOOR · max |kept|), entry by entry; NaN and infinities must stand
    where they stood, and arrays that are not of numbers must be equal: else it is infinite.

    >>> difference({"x": np.array([1.0, 2.5])}, {"x": np.array([1.0, 2.0])})
    (0.25, 'x')
    """
    if odd := sorted(set(made) ^ set(kept)):
        return math.inf, odd[0]
    found = {name: _relative(np.asarray(made[name]), kept[name]) for name in made}
    found = {name: value for name, value in found.items() if name.split(".")[-1] != CLOCK}
    where = max(found, key=lambda name: found[name], default="")
    return (found[where] if where else 0.0), where


def _relative(made: np.ndarray, kept: np.ndarray) -> float:
    if made.shape != kept.shape or made.dtype != kept.dtype:
        return math.inf
    if not np.issubdtype(made.dtype, np.number):
        return 0.0 if np.array_equal(made, kept) else math.inf
    a, b = made.astype(np.float64).ravel(), kept.astype(np.float64).ravel()
    finite = np.isfinite(b)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(a[finite]).all()
    ):
        return math.inf
    a, b = a[finite], b[finite]
    if np.array_equal(a, b):
        return 0.0
    size = np.maximum(np.abs(b), FLOOR * np.abs(b).max())
    if size.max() == 0:
        return math.inf
    return float((np.abs(a - b) / size).max())
