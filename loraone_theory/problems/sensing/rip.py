"""The restricted isometry constant δ_r: lower bounds with their matrices; operators by δ_r.

δ_r is the supremum of |‖𝒜M‖²/m − 1| over ‖M‖_F = 1 and rank M <= r. No algorithm finds it in
general; every matrix is a lower bound, and alternation finds good ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.linalg import truncated_svd
from loraone_theory.core.randomness import generator, haar_frame, normal, per_seed
from loraone_theory.problems.sensing.base import MeasurementOperator
from loraone_theory.problems.sensing.operators import Completion, Dense, Symmetric
from loraone_theory.problems.sensing.search import alternate, alternate_symmetric

# Gaussian matrices over which the width in Gordon's bounds is averaged.
DRAWS = 200


class Isometry(NamedTuple):
    """Bounds δ_r >= max(lower, upper), with the matrices that prove them.

    Args:
        upper: sup ‖𝒜M‖²/m − 1, from below, shape (...).
        lower: 1 − inf ‖𝒜M‖²/m, from below, shape (...).
        greatest: the matrix of `upper`, of Frobenius norm 1.
        least: the matrix of `lower`, of Frobenius norm 1.
        gordon: what `upper` and `lower` are at most in the mean, for the dense ensemble; None
            for the others.
        exact: True where the bounds are the suprema themselves (completion).
    """

    upper: Tensor
    lower: Tensor
    greatest: Factors
    least: Factors
    gordon: tuple[float, float] | None = None
    exact: bool = False

    @property
    def delta(self) -> Tensor:
        """The larger of the two."""
        return torch.maximum(self.upper, self.lower)


def estimate(
    operator: MeasurementOperator,
    rank: int,
    restarts: int = 5,
    *,
    seed: int = 0,
    sweeps: int = 200,
    tolerance: float = 1e-6,
) -> Isometry:
    """Lower bounds on both sides of δ_r by alternation from random starts.

    For fixed B with orthonormal rows, ‖𝒜(AB)‖²/m is a quadratic form in A: its top (bottom)
    eigenvector is the best A. QR, then the same for B. The value is monotone; the best of the
    restarts is kept and evaluated anew. Under the symmetric ensemble M is symmetric. For
    completion the suprema are known: one entry alone is a rank-one matrix, so that the lower side
    is 1 as soon as an entry is missing; `incoherence` says what matters there.

    Args:
        operator: 𝒜, batch (...).
        rank: r.
        restarts: random starts; the best is kept.
        seed: of the starts.
        sweeps: at most so many alternations.
        tolerance: stop when no value changes by more than this times itself.

    Returns:
        An Isometry of batch shape (...).

    Raises:
        TypeError, ValueError: a rank or a count out of range.

    Reference: docs/derivations_sensing.md, section 4.

    >>> bounds = estimate(designed(3, 2, 0.25), rank=2)
    >>> round(float(bounds.upper), 6), round(float(bounds.lower), 6)
    (0.25, 0.25)
    """
    validate.members("operator", operator, MeasurementOperator, "take one of lt.operators")
    rank = validate.rank(rank, d=operator.d, k=operator.k)
    restarts = validate.integer("restarts", restarts, least=1)
    seed = validate.integer("seed", seed, least=0)
    sweeps = validate.integer("sweeps", sweeps, least=1)
    tolerance = validate.number("tolerance", tolerance, positive=True)
    if isinstance(operator, Completion):
        return _of_entries(operator)
    search = alternate_symmetric if isinstance(operator, Symmetric) else alternate
    found = []
    for largest in (True, False):
        start = generator(seed, f"restricted isometry {largest}")
        shape = (restarts, *operator.batch_shape, operator.d, operator.k, rank)
        candidates = search(operator, start, shape, largest, sweeps, tolerance)
        found.append(_best(operator, candidates, largest))
    (top, greatest), (bottom, least) = found
    gordon = None
    if isinstance(operator, Dense):
        gordon = gordon_bounds(operator.d, operator.k, rank, operator.measurements)
    return Isometry(top - 1, 1 - bottom, greatest, least, gordon)


def _best(
    operator: MeasurementOperator, candidates: Factors, largest: bool
) -> tuple[Tensor, Factors]:
    """The best restart of each instance, and its value measured on the matrix itself."""
    values = quotient(operator, candidates)
    best = values.max(0) if largest else values.min(0)
    index = best.indices[None, ..., None, None]
    chosen = (torch.take_along_dim(M, index, dim=0)[0] for M in candidates)
    return best.values, Factors(*chosen)


def quotient(operator: MeasurementOperator, M: Factors) -> Tensor:
    """‖𝒜M‖²/(m‖M‖²), shape (...)."""
    validate.members("operator", operator, MeasurementOperator, "take one of lt.operators")
    validate.instance("M", M, Factors)
    A, B = validate.tensor("M.A", M.A), validate.tensor("M.B", M.B)
    validate.same_kind(**{"operator": operator.like, "M.A": A, "M.B": B})
    validate.shapes_match(
        f"M must be A (..., {operator.d}, r) and B (..., r, {operator.k})",
        (A.shape[-2], B.shape[-1]) == (operator.d, operator.k) and A.shape[-1] == B.shape[-2],
        A=A.shape,
        B=B.shape,
    )
    image = operator.forward(M)
    size = (torch.linalg.qr(M.A, mode="r").R @ M.B).square().sum((-2, -1))
    return image.square().sum(-1) / (operator.measurements * size)


def _of_entries(operator: Completion) -> Isometry:
    """K = dk/m diag(counts): the extremes are at single entries."""
    counts = operator.counts.flatten(-2)
    share = operator.d * operator.k / operator.measurements
    sides = []
    for value in (counts.max(-1), counts.min(-1)):
        row, column = value.indices // operator.k, value.indices % operator.k
        one = torch.nn.functional.one_hot
        A = one(row, operator.d).to(counts)[..., None]
        B = one(column, operator.k).to(counts)[..., None, :]
        sides.append((share * value.values, Factors(A, B)))
    (top, greatest), (bottom, least) = sides
    return Isometry(top - 1, 1 - bottom, greatest, least, exact=True)


@cache
def gordon_bounds(d: int, k: int, rank: int, measurements: int) -> tuple[float, float]:
    """What the two sides of δ_r are at most in the mean, for dense Gaussian measurements.

    (1 + w/√m)² − 1 and 1 − (1 − w/√m)₊² with w = E (Σ_{i<=r} s_i²)^{1/2}, s_i the singular values
    of a d×k Gaussian matrix, here averaged over fixed draws.

    >>> [round(x, 1) for x in gordon_bounds(16, 16, 1, 64)]
    [2.7, 1.0]
    """
    d, k = validate.integer("d", d, least=1), validate.integer("k", k, least=1)
    rank = validate.rank(rank, d=d, k=k)
    measurements = validate.integer("measurements", measurements, least=1)
    like = torch.empty(0, dtype=torch.float64)
    G = per_seed(lambda rng: normal(rng, d, k), range(DRAWS), "Gordon", like)
    width = float(torch.linalg.svdvals(G)[:, :rank].square().sum(-1).sqrt().mean())
    ratio = width / measurements**0.5
    return (1 + ratio) ** 2 - 1, 1 - max(1 - ratio, 0.0) ** 2


def incoherence(shift: Factors | Tensor, rank: int | None = None) -> Tensor:
    """μ = max(d/r max_i ‖U_i‖², k/r max_j ‖V_j‖²), between 1 and max(d, k)/r, shape (...).

    Args:
        shift: Δ (..., d, k), dense or Factors.
        rank: r; by default the inner dimension of Factors.

    Raises:
        ValueError: a dense Δ without a rank.

    >>> round(float(incoherence(torch.eye(4)[:, :2] @ torch.ones(2, 6), rank=1)), 5)
    2.0
    """
    if isinstance(shift, Factors):
        shift = checked("shift", shift)
    else:
        shift = validate.tensor("shift", shift)
    if rank is None:
        if not isinstance(shift, Factors):
            raise ValueError("incoherence of a dense matrix needs its rank; pass rank=r")
        rank = shift.rank
    d, k = shift.shape[-2:]
    U, _, V = truncated_svd(shift, validate.rank(rank, d=d, k=k))
    rows = [n / rank * F.square().sum(-1).amax(-1) for n, F in ((d, U), (k, V))]
    return torch.maximum(*rows)


def designed(
    d: int,
    k: int,
    delta: float,
    *,
    extreme: bool = False,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
) -> Dense:
    """An operator with δ_r <= `delta` for every r, by construction: 𝒜*𝒜/m = I + δT, m = dk.

    T has a Haar eigenbasis in R^{dk} and eigenvalues evenly spaced in [−1, 1], so that theorems
    under a small δ can be tested inside their hypotheses; Gaussian operators reach such a δ at m
    far beyond dk only.

    Args:
        d: rows of the matrices.
        k: their columns.
        delta: 0 <= δ < 1.
        extreme: eigenvalues ±1 by halves in place of evenly spaced ones.
        seeds: one operator per seed.
        dtype: float32 or float64.

    Raises:
        ValueError: δ not in [0, 1).
    """
    d, k = validate.integer("d", d, least=1), validate.integer("k", k, least=1)
    delta = validate.below_one("delta", delta)
    like = torch.empty(0, dtype=validate.dtype(dtype))
    n = d * k
    values = torch.linspace(-1, 1, n, dtype=torch.float64)
    if validate.flag("extreme", extreme):
        values = torch.where(torch.arange(n) < n // 2, -1.0, 1.0).double()
    root = (1 + delta * values).sqrt().to(like)
    Q = per_seed(lambda rng: haar_frame(rng, n, n), validate.seeds(seeds), "eigenbasis", like)
    rows = n**0.5 * (Q * root) @ Q.mT
    return Dense(rows.unflatten(-1, (d, k)))
