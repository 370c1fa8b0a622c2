"""Spectral-init: the best rank-r part of the one-step gradient, split evenly."""

from __future__ import annotations

from loraone_theory.inits.base import Init, gradient_svd
from loraone_theory.linalg import EXACT, SVDOptions
from loraone_theory.parametrisations import Start
from loraone_theory.problems.base import Problem


def spectral(gamma: float | None = None, scale: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = √(γ/s) U_r S_r^{1/2}, B₀ = √(γ/s) S_r^{1/2} V_rᵀ from G = U S Vᵀ; no offset.

    Hence s A₀B₀ = γ · (best rank-r part of G). γ defaults to the problem's own: 1 in the linear
    model, 2 in the ReLU one. Where r exceeds the rank of G the further columns are zero.
    """

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        U, S, V = gradient_svd(problem, rank, svd)
        factor = problem.spectral_gamma if gamma is None else gamma
        root = (factor / scale * S).sqrt()
        return Start((U * root[..., None, :], root[..., None] * V.mT))

    return init
