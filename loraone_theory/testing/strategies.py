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

What a failing test prints can be pasted: problems and factors show as the calls that make them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.extras import extra
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, haar_frame, normal
from loraone_theory.problems.activation import ACTIVATIONS, sample_activation
from loraone_theory.problems.autograd import LossProblem
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import linear_population, sample_linear
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

with extra("test"):
    from hypothesis import strategies as st

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
    samples: Bounds | None = None,
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
        samples: least and largest N in place of that, for example (1, 3): fewer than d.
        dtype: float32 or float64.

    Returns:
        LinearProblems of batch shape (batch,), with W.
    """
    d, k, true_rank = draw(shapes(widths=widths, true_ranks=true_ranks))
    spectrum = draw(spectra(true_rank, condition_number=condition_number))
    first = draw(SEEDS)
    make = linear_population if population else sample_linear
    return make(
        d=d,
        k=k,
        true_rank=true_rank,
        samples=_rows(draw, d, samples_per_dimension, samples),
        spectrum=spectrum,
        seeds=tuple(range(first, first + batch)),
        dtype=dtype,
    )


def _rows(draw: st.DrawFn, d: int, per_dimension: Bounds, samples: Bounds | None) -> int:
    if samples is not None:
        return draw(st.integers(*samples))
    return draw(st.integers(*per_dimension)) * d


@st.composite
def relu_problems(
    draw: st.DrawFn,
    *,
    batch: int = 1,
    population: bool = False,
    widths: Bounds = (3, 14),
    true_ranks: Bounds = (1, 4),
    condition_number: float = 10.0,
    relative_shifts: tuple[float, float] = (0.01, 0.5),
    samples_per_dimension: Bounds = (4, 20),
    samples: Bounds | None = None,
    dtype: torch.dtype = torch.float64,
) -> ReLUProblem | ReLUPopulation:
    """ReLU problems, on samples or at N = ∞; arguments as for `problems`.

    Args:
        relative_shifts: least and largest max_m ‖Δ_m‖/‖w_m‖.
    """
    known = _one_layer(draw, batch, widths, true_ranks, condition_number, relative_shifts, dtype)
    if population:
        return sample_relu_population(**known)
    return sample_relu(**known, samples=_rows(draw, known["d"], samples_per_dimension, samples))


@st.composite
def loss_problems(
    draw: st.DrawFn,
    *,
    batch: int = 1,
    widths: Bounds = (3, 10),
    true_ranks: Bounds = (1, 4),
    condition_number: float = 10.0,
    relative_shifts: tuple[float, float] = (0.01, 0.5),
    samples_per_dimension: Bounds = (2, 8),
    samples: Bounds | None = None,
    dtype: torch.dtype = torch.float64,
) -> LossProblem:
    """Problems that a user might make with `from_loss`: a layer of GELU, tanh or softplus units."""
    known = _one_layer(draw, batch, widths, true_ranks, condition_number, relative_shifts, dtype)
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    rows = _rows(draw, known["d"], samples_per_dimension, samples)
    return sample_activation(**known, activation=activation, samples=rows)


def _one_layer(
    draw: st.DrawFn,
    batch: int,
    widths: Bounds,
    true_ranks: Bounds,
    condition_number: float,
    relative_shifts: tuple[float, float],
    dtype: torch.dtype,
) -> dict[str, Any]:
    d, k, true_rank = draw(shapes(widths=widths, true_ranks=true_ranks))
    first = draw(SEEDS)
    return {
        "d": d,
        "k": k,
        "true_rank": true_rank,
        "relative_shift": draw(st.floats(*relative_shifts)),
        "condition_number": draw(st.floats(1.0, condition_number)),
        "seeds": tuple(range(first, first + batch)),
        "dtype": dtype,
    }


def factors(
    d: int, k: int, rank: int, *, size: float = 0.3, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Factors]:
    """Gaussian A (d, r) and B (r, k) with entries of standard deviation `size`."""
    given = {"d": d, "k": k, "rank": rank, "size": size, "dtype": dtype}
    return st.builds(gaussian_factors, seed=SEEDS, **_just(given))


def gaussian_factors(
    *, d: int, k: int, rank: int, seed: int, size: float = 0.3, dtype: torch.dtype = torch.float64
) -> Factors:
    """The pair that `factors` draws with this seed."""
    rng = generator(seed, "factors")
    pair = (normal(rng, d, rank), normal(rng, rank, k))
    return Factors(*(size * torch.from_numpy(M).to(dtype) for M in pair))


def degenerate_factors(
    d: int,
    k: int,
    rank: int,
    *,
    smallest: tuple[float, float] = (1e-12, 1e-3),
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Factors]:
    """A and B with singular values geometric from 1 to a value within `smallest`, r <= d, k."""
    exponents = st.floats(*(math.log10(value) for value in smallest))
    given = {"d": d, "k": k, "rank": rank, "dtype": dtype}
    return st.builds(graded_factors, seed=SEEDS, exponent=exponents, **_just(given))


def graded_factors(
    *, d: int, k: int, rank: int, seed: int, exponent: float, dtype: torch.dtype = torch.float64
) -> Factors:
    """The pair that `degenerate_factors` draws: singular values from 1 to 10^exponent."""
    rng = generator(seed, "graded factors")
    values = np.logspace(0.0, exponent, rank)
    mix = [haar_frame(rng, rank, rank) for _ in range(2)]
    A = haar_frame(rng, d, rank) * values @ mix[0]
    B = (haar_frame(rng, k, rank) * values @ mix[1]).T
    return Factors(torch.from_numpy(A).to(dtype), torch.from_numpy(B.copy()).to(dtype))


def _just(values: dict[str, Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.just(value) for name, value in values.items()}


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
