"""What the packs on factorisations share: problems of a given spectrum, starts near them, times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims import stats
from loraone_theory.claims.base import Evidence
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.rules.base import Rule, no_update
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.base import MeasurementOperator

EPS = float(np.finfo(np.float64).eps)
LIKE = torch.empty(0, dtype=torch.float64)


class Population(NamedTuple):
    """N = ∞: the gradient in W is E = AB − USVᵀ; U (n, d, r), S (n, r), V (n, k, r)."""

    problem: LinearProblem
    U: Tensor
    S: Tensor
    V: Tensor

    @property
    def balanced(self) -> Factors:
        """US^{1/2} and S^{1/2}Vᵀ."""
        root = self.S.sqrt()
        return Factors(self.U * root[:, None, :], root[..., None] * self.V.mT)


def spectrum(kappa: float, rank: int) -> Tensor:
    """κ, …, 1, geometrically.

    >>> spectrum(100.0, 3).tolist()
    [100.0, 10.0, 1.0]
    """
    return torch.from_numpy(np.geomspace(kappa, 1.0, rank))


def population(d: int, k: int, S: Tensor, seeds: Sequence[int]) -> Population:
    """Δ = USVᵀ with Haar frames, one instance per seed; S (r,) or (n, r)."""
    S = S.expand(len(seeds), -1)
    U, V = (haar(n, S.shape[-1], seeds, name) for n, name in ((d, "U"), (k, "V")))
    return Population(LinearProblem.population(shift=Factors(U * S[:, None, :], V.mT)), U, S, V)


def symmetric_population(n: int, S: Tensor, seeds: Sequence[int]) -> Population:
    """M = USUᵀ."""
    S = S.expand(len(seeds), -1)
    U = haar(n, S.shape[-1], seeds, "U")
    return Population(LinearProblem.population(shift=Factors(U * S[:, None, :], U.mT)), U, S, U)


def haar(n: int, r: int, seeds: Sequence[int], name: str) -> Tensor:
    """Orthonormal columns (seeds, n, r), uniformly distributed."""
    return per_seed(lambda rng: haar_frame(rng, n, r), seeds, name, LIKE)


def gaussian(rows: int, columns: int, seeds: Sequence[int], name: str) -> Tensor:
    """Independent N(0, 1) entries (seeds, rows, columns)."""
    return per_seed(lambda rng: normal(rng, rows, columns), seeds, name, LIKE)


def started(method: Method, *tensors: Tensor) -> Method:
    """The method from these tensors."""
    return method.with_init(lambda *_: Start(tensors), name="given")


def near(of: Population, distance: float, seeds: Sequence[int]) -> Factors:
    """A start whose distance in ScaledGD's metric is `distance` at Q = I.

    That is ‖(A − US^{1/2})S^{1/2}‖² + ‖S^{1/2}(B − S^{1/2}Vᵀ)‖², in a Gaussian direction.
    """
    (d, r), k = of.U.shape[-2:], of.V.shape[-2]
    X, Y = gaussian(d, r, seeds, "X"), gaussian(r, k, seeds, "Y")
    root = of.S.sqrt()
    size = ((X * root[:, None, :]).square() + 0.0).sum((-2, -1))
    size = (size + (root[..., None] * Y).square().sum((-2, -1))).sqrt()[:, None, None]
    at = of.balanced
    return Factors(at.A + distance * X / size, at.B + distance * Y / size)


def sequential(learning_rate: Scalar, damping: Scalar = 0.0, share: float = 1.0) -> Rule:
    """A⁺ = A − η∇_A(A, B), then B⁺ = B − share·η∇_B(A⁺, B); there is nothing to damp."""

    def advance(
        params: Params, gradients: Callable[[Params], Params], state: None
    ) -> tuple[Params, None]:
        A, B = params
        A = A - learning_rate * gradients((A, B))[0]
        return (A, B - share * learning_rate * gradients((A, B))[1]), state

    return Rule(
        lambda params: None, no_update("sequential"), equivariant=True, pair=True, advance=advance
    )


def tangent_matrix(operator: MeasurementOperator, at: Factors) -> Tensor:
    """(X, Y) ↦ 𝒜(XB + AY) as a matrix (..., m, r(d + k)), the entries of X before those of Y."""
    (d, r), k = at.A.shape[-2:], at.B.shape[-1]
    units = torch.eye(r * (d + k)).to(at.A)
    moves = (Factors(u[: d * r].view(d, r), u[d * r :].view(r, k)) for u in units)
    return torch.stack([operator.tangent(at, move) for move in moves], -1)


def condition(M: Tensor) -> Tensor:
    """Largest over smallest singular value (...)."""
    S = torch.linalg.svdvals(M)
    return S[..., 0] / S[..., -1]


def first_below(values: Tensor, level: float | Tensor) -> np.ndarray:
    """First index along time at which values (T, ...) are at most the level; inf where none is."""
    below = (values <= level).numpy()
    return np.where(below.any(0), below.argmax(0), np.inf)


def crossing(values: np.ndarray, level: float) -> np.ndarray:
    """When values (T, n) come to the level, along a geometric sequence between steps; or inf."""
    below = values <= level
    at = below.argmax(0)
    before, after = (np.take_along_axis(values, at[None] - n, 0)[0] for n in (1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.log(before / level) / np.log(before / after)
    return np.where(below.any(0), at - 1 + part, np.inf)


def exponents(x: Sequence[float], y: np.ndarray) -> np.ndarray:
    """Least-squares slope of ln y (len(x), n) against ln x, for each of the n draws.

    Infinite where a y is: what has not arrived takes longer than any power says.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = stats.slopes(np.log(x), np.log(y), finite=False)
    return np.where(np.isposinf(y).any(0), np.inf, found)


def exponent(found: np.ndarray, promised: float, allowance: float, **numbers: float) -> Evidence:
    """Exponents of independent draws whose mean shall be the promised one."""
    return Evidence(found, promised, tolerance=allowance, numbers=numbers)
