"""Whether data made again are the data kept: the largest relative difference, and how much may be.

Two processors sum in different orders, so the same run on both agrees to rounding, not in bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loraone_theory import storage

# Arrays of this name hold times taken, which no two runs share.
CLOCK = "seconds"


def floor(dtype: str = "float64") -> float:
    """√eps: entries below this share of the largest one of their array are compared relative to it.

    Small entries carry the rounding of large ones, so their own digits are not the same anywhere.

    >>> floor()
    1.4901161193847656e-08
    """
    return math.sqrt(np.finfo(dtype).eps)


def tolerance(*, size: int, growth: float = 1.0, dtype: str = "float64") -> float:
    """√size · √eps · growth, the largest relative difference that rounding explains.

    An inner product of length `size`, summed in another order, moves by √size · eps of the largest
    entry or so (roundings add up like a random walk); the run multiplies that by `growth`; an entry
    at the floor shows it 1/√eps times.

    Args:
        size: the longest sum, d or N.
        growth: what a relative perturbation is multiplied by until the data are made, at most.
        dtype: of the simulations.

    >>> tolerance(size=4, growth=10.0) == 20 * floor()
    True
    """
    return math.sqrt(size) * floor(dtype) * growth


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

    @property
    def verdict(self) -> str:
        """One word for a table: done, differs, or that nothing was compared."""
        return "not compared" if self.largest is None else "done" if self.holds else "differs"

    def __str__(self) -> str:
        if self.largest is None:
            return f"not compared: {self.where}"
        if self.largest == 0:
            return "none"
        sign = "<=" if self.holds else ">"
        return f"{self.largest:.1e} {sign} {self.tolerance:.0e} ({self.where})"


def stored(folder: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and config of <folder>/<name>.npz and .json; None where there are none.

    Raises:
        DamagedFile: one is damaged, or they were not written together.
    """
    data = folder / f"{name}.npz"
    beside = data.with_suffix(".json")
    if not (data.is_file() and beside.is_file()):
        return None
    arrays, about = storage.load_pair(data)
    with storage.reading(beside, "what an experiment stored"):
        config = dict(about["config"])
    if "seeds" in config:  # the former name of trials
        config["trials"] = config.pop("seeds")
    return arrays, config


def same_bits(made: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> bool:
    """Whether all arrays but clocks are equal, NaN where NaN is."""
    return difference(made, kept)[0] == 0


def difference(
    made: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray], dtype: str = "float64"
) -> tuple[float, str]:
    """The largest relative difference of any array but clocks, and the array that has it.

    |made − kept| / max(|kept|, floor(dtype) · max |kept|), entry by entry. NaN and infinities
    must stand where they stood, and arrays that are not of numbers be equal: else it is infinite.

    >>> difference({"x": np.array([1.0, 2.5])}, {"x": np.array([1.0, 2.0])})
    (0.25, 'x')
    """
    if odd := sorted(set(made) ^ set(kept)):
        return math.inf, odd[0]
    found = {name: _relative(np.asarray(made[name]), kept[name], floor(dtype)) for name in made}
    found = {name: value for name, value in found.items() if name.split(".")[-1] != CLOCK}
    where = max(found, key=lambda name: found[name], default="")
    return (found[where] if where else 0.0), where


def _relative(made: np.ndarray, kept: np.ndarray, least: float) -> float:
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
    size = np.maximum(np.abs(b), least * np.abs(b).max())
    if size.max() == 0:
        return math.inf
    return float((np.abs(a - b) / size).max())
