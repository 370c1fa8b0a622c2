"""Hypothesis strategies for problems, factors and matrices, to property-test one's own statements.

A strategy bounds what rounding depends on (widths, κ, N/d, singular values), so that a tolerance
can be stated before the test is run. Needs hypothesis: `pip install "loraone-theory[test]"`.

For example, Spectral-init starts within ε‖Δ‖_op of the target, ε = ‖Σ̂ − I‖_op:

>>> import loraone_theory as lt
>>> from hypothesis import given, settings
>>> from loraone_theory import testing
>>> @settings(max_examples=10, deadline=None, database=None, derandomize=True)
... @given(testing.problems(condition_number=3.0))
... def starts_close(problem):
...     G = problem.one_step_gradient().dense()
...     gap = torch.linalg.matrix_norm(G - problem.shift.dense(), 2)
...     size = torch.linalg.matrix_norm(problem.shift.dense(), 2)
...     assert bool((gap <= problem.covariance_deviation() * size * (1 + 1e-12)).all())
>>> starts_close()
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, haar_frame, normal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "loraone_theory.testing makes hypothesis strategies, and hypothesis is not installed; "
        "run: pip install 'loraone-theory[test]'"
    ) from error

# Seeds of everything that is drawn from a law instead of shrunk entry by entry.
SEEDS = st.integers(0, 10**6)
Bounds = tuple[int, int]


class Shape(NamedTuple):
    """The widths of a problem: d, k and r* <= min(d, k)."""

    d: int
    k: int
    true_rank: int


@st.composite
def shapes(draw: st.DrawFn, *, widths: Bounds = (3, 14), true_ranks: Bounds = (1, 4)) -> Shape:
    """d and k within `widths`, r* within `true_ranks` and at most min(d, k)."""
    d, k = draw(st.integers(*widths)), draw(st.integers(*widths))
    least, most = true_ranks
    return Shape(d, k, draw(st.integers(least, min(d, k, most))))


@st.composite
def spectra(
    draw: st.DrawFn, true_rank: int, *, condition_number: float = 10.0, top: float = 1.0
) -> tuple[float, ...]:
    """λ₁* >= … >= λ*_{r*} with λ₁* = `top` and κ <= `condition_number`; shrinks to a flat one."""
    ratio = st.floats(1.0, condition_number)
    ratios = draw(st.lists(ratio, min_size=true_rank - 1, max_size=true_rank - 1))
    return tuple(top / value for value in (1.0, *sorted(ratios)))


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    batch: int = 1,
    population: bool = False,
    widths: Bounds = (3, 14),
    true_ranks: Bounds = (1, 4),
    condition_number: float = 10.0,
    samples_per_dimension: Bounds = (4, 20),
    dtype: torch.dtype = torch.float64,
) -> LinearProblem:
    """Linear problems Δ = U diag(λ*) Vᵀ with Haar frames and Gaussian inputs.

    Args:
        batch: instances, which share their widths and λ*.
        population: Σ̂ = I instead of XᵀX/N.
        widths: least and largest d and k.
        true_ranks: least and largest r*.
        condition_number: the largest κ.
        samples_per_dimension: least and largest N/d.
        dtype: float32 or float64.

    Returns:
        LinearProblems of batch shape (batch,), with W.
    """
    d, k, true_rank = draw(shapes(widths=widths, true_ranks=true_ranks))
    spectrum = draw(spectra(true_rank, condition_number=condition_number))
    first = draw(SEEDS)
    sampled = sample_linear(
        d=d,
        k=k,
        true_rank=true_rank,
        samples=draw(st.integers(*samples_per_dimension)) * d,
        spectrum=spectrum,
        seeds=tuple(range(first, first + batch)),
        dtype=dtype,
    )
    if population:
        return LinearProblem.population(shift=sampled.shift, pretrained=sampled.pretrained)
    return sampled


def factors(
    d: int, k: int, rank: int, *, size: float = 0.3, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Factors]:
    """Gaussian A (d, r) and B (r, k) with entries of standard deviation `size`."""

    def make(seed: int) -> Factors:
        rng = generator(seed, "factors")
        pair = (normal(rng, d, rank), normal(rng, rank, k))
        return Factors(*(size * torch.from_numpy(M).to(dtype) for M in pair))

    return SEEDS.map(make)


def orthogonal(n: int, *, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Tensor]:
    """Haar-distributed orthogonal matrices (n, n)."""
    return SEEDS.map(
        lambda seed: torch.from_numpy(haar_frame(generator(seed, "orthogonal"), n, n)).to(dtype)
    )


@st.composite
def invertible(
    draw: st.DrawFn, n: int, *, condition_number: float = 4.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Q = O₁ diag(σ) O₂ (n, n) with σ_i in [κ^{−1/2}, κ^{1/2}], so its condition number is <= κ."""
    half = condition_number**0.5
    values = draw(st.lists(st.floats(1 / half, half), min_size=n, max_size=n))
    left, right = draw(orthogonal(n, dtype=dtype)), draw(orthogonal(n, dtype=dtype))
    return (left * torch.tensor(values, dtype=dtype)) @ right
