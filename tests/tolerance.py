"""Tolerances of the tests, derived from dtype, size and conditioning; none was found by running.

An inner product of length n, computed in any order, errs by at most n·eps times the sum of the
absolute values of its terms (Higham, Accuracy and Stability, 3.1); a chain of m such operations
errs by at most m times that, times the condition number of what it computes. So

    relative error <= m · n · eps · κ,

with eps (1 in the last place) in place of the unit roundoff, which leaves a factor 2 for the
second side of the comparison. The bound holds whatever the order of summation is, and so on every
processor and for every number of threads.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
import torch

DType = torch.dtype | np.dtype | type


def eps(dtype: DType = torch.float64) -> float:
    """Machine epsilon of a torch or numpy dtype."""
    info = torch.finfo if isinstance(dtype, torch.dtype) else np.finfo
    return float(info(dtype).eps)


def rounding(
    size: int, *, operations: float = 1, condition: float = 1.0, dtype: DType = torch.float64
) -> float:
    """Largest relative error of `operations` products of length `size` at this conditioning."""
    return operations * size * eps(dtype) * max(condition, 1.0)


def condition(
    compute: Callable[..., np.ndarray], *inputs: np.ndarray, nudge: float = 1e-7, draws: int = 4
) -> float:
    """Condition number of `compute` at `inputs`: relative change out over relative change in.

    By finite differences in random directions of the longhand code, so that nothing under test
    sets its own tolerance. A random direction of n entries has 1/√n of the worst one in the mean;
    the factor √n is put back.
    """
    rng = np.random.default_rng(0)
    there = np.asarray(compute(*inputs))
    worst = 0.0
    for _ in range(draws):
        moved = []
        for M in inputs:
            step = rng.standard_normal(M.shape)
            moved.append(M + nudge * np.linalg.norm(M) / np.linalg.norm(step) * step)
        change = np.linalg.norm(np.asarray(compute(*moved)) - there) / np.linalg.norm(there)
        worst = max(worst, change / nudge)
    return worst * sum(M.size for M in inputs) ** 0.5


def subspace(values: Sequence[float] | np.ndarray, rank: int, error: float) -> float:
    """Largest change of the sine of the top-`rank` singular subspace (Wedin's theorem).

    Args:
        values: singular values, descending.
        rank: of the subspace.
        error: operator norm of the perturbation.
    """
    values = np.asarray(values, dtype=np.float64)
    below = values[rank] if rank < len(values) else 0.0
    gap = values[rank - 1] - below
    return 2 * error / gap if gap > 0 else math.inf


def close(found: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    """‖found − expected‖_F <= relative · ‖expected‖_F, over the last two dimensions."""
    assert found.shape == expected.shape
    gap, size = (torch.linalg.matrix_norm(M) for M in (found - expected, expected))
    worst = float((gap / size).max())
    assert bool((gap <= relative * size).all()), f"{worst:.3g} apart, {relative:.3g} allowed"


def near(
    size: int,
    *,
    scale: float = 0.0,
    operations: float = 1,
    condition: float = 1.0,
    dtype: DType = torch.float64,
) -> dict[str, float]:
    """rtol and atol of a comparison by entries, as keywords.

    An entry is a sum of terms that may cancel, and errs relative to the terms, not to the sum.

    Args:
        size, operations, condition, dtype: as in `rounding`.
        scale: sum of the absolute values of the terms, at most: ‖x‖‖y‖ for an inner product.
    """
    allowed = rounding(size, operations=operations, condition=condition, dtype=dtype)
    return {"rtol": allowed, "atol": allowed * scale}


def printed(decimals: int) -> float:
    """Half a unit of the last place of a number that is given to so many decimals."""
    return 0.5 * 10.0**-decimals


def deviates(comparisons: int = 1, false_alarm: float = 1e-6) -> float:
    """Standard deviations that any of `comparisons` normal means exceeds this rarely."""
    return float(scipy.stats.norm.isf(false_alarm / (2 * comparisons)))


def roots(found: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    """Squared norms (T + 1, ...) of matrices that are `relative` times the first one apart.

    |‖E‖ − ‖E'‖| <= ‖E − E'‖, so the roots differ by no more than that; the squares of small
    norms may differ by much more, relative to themselves.
    """
    gap = (found.sqrt() - expected.sqrt()).abs()
    worst = float((gap / expected[:1].sqrt()).max())
    assert worst <= relative, f"{worst:.3g} apart, {relative:.3g} allowed"
