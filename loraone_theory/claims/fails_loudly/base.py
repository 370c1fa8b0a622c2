"""Operators under which descent is looked at: drawn at random, and the least with a trap."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from loraone_theory.claims.population import haar, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing import rip
from loraone_theory.problems.sensing.operators import Dense
from loraone_theory.problems.sensing.problem import SensingProblem

D = 4


def isometry(ratio: float) -> float:
    """The δ at which β/α = (1 + δ)/(1 − δ) is `ratio`.

    >>> isometry(3.0)
    0.5
    """
    return (ratio - 1) / (ratio + 1)


def drawn(seeds: Sequence[int], delta: float, rank: int) -> SensingProblem:
    """𝒜*𝒜/m = I + δT, T of eigenvalues ±1 by halves; Δ of equal singular values, ‖Δ‖ = 1."""
    shift = population(D, D, spectrum(1.0, rank) / rank**0.5, seeds).problem.shift
    operator = rip.designed(D, D, delta, extreme=True, seeds=seeds)
    return SensingProblem.from_data(operator, operator.forward(shift), shift=shift)


def trapped(seeds: Sequence[int], delta: float, rank: int) -> SensingProblem:
    """T = I − 2⟨W, ·⟩W, W = (u₁v₁ᵀ − uvᵀ)/√2 with the first pair of Δ and one off it.

    From δ = ½ on, δσuvᵀ in place of σu₁v₁ᵀ is a local minimum.
    """
    U, V = (haar(D, rank + 1, seeds, name) for name in ("U", "V"))
    size = rank**-0.5
    shift = Factors(size * U[..., :rank], V[..., :rank].mT)
    pairs = U[..., :, None, :] * V[..., None, :, :]  # (n, d, k, rank + 1)
    W = ((pairs[..., 0] - pairs[..., rank]) / 2**0.5).flatten(1)
    upper, lower = (1 + delta) ** 0.5, (1 - delta) ** 0.5
    root = upper * torch.eye(D * D, dtype=W.dtype) + (lower - upper) * W[:, :, None] * W[:, None]
    operator = Dense(D * root.unflatten(-1, (D, D)))
    return SensingProblem.from_data(operator, operator.forward(shift), shift=shift)
