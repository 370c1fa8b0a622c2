"""Spectral-init: the best rank-r part of the one-step gradient, split evenly."""

from __future__ import annotations

import math

import torch

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import EXACT, SVD, SVDOptions
from loraone_theory.methods.inits.base import Init, gradient_svd, split
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem, fact


def spectral(gamma: float | str | None = None, scale: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = √(γ/s) U_r S_r^{1/2}, B₀ = √(γ/s) S_r^{1/2} V_rᵀ from G = U S Vᵀ; no offset.

    Hence s A₀B₀ = γ · (best rank-r part of G). γ defaults to the problem's own: 1 in the linear
    model, 2 in the ReLU one, where "corrected" stands for 2/(1 − c/π) with c the relative shift:
    to leading order in c that undoes the shrinkage of G where every Δ_m is orthogonal to w_m and
    of one relative size. Where r exceeds the rank of G the further columns are zero.

    Raises:
        ValueError: γ is neither positive nor "corrected"; "corrected" where there is no ReLU
            relative shift below π (when the initialisation is made).
    """
    if isinstance(gamma, str):
        validate.choice("gamma", gamma, ("corrected",))
    elif gamma is not None:
        gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        found = gradient_svd(problem, rank, svd)
        return Start(factors(found, _factor(problem, gamma), scale))

    return init


def factors(svd: SVD, gamma: Scalar, scale: float) -> Params:
    """A₀ and B₀ from the triplets of G; γ is a number, or one for each instance as (..., 1)."""
    return split(svd, (gamma / scale * svd.S).sqrt())


def _factor(problem: Problem, gamma: float | str | None) -> Scalar:
    """γ as a number, or one for each instance as (..., 1)."""
    usual: float = fact(problem, "spectral_gamma")
    if gamma is None:
        return usual
    if not isinstance(gamma, str):
        return gamma
    relative_shift = fact(problem, "relative_shift")
    if relative_shift is None:
        raise ValueError(
            "gamma='corrected' needs the relative shift of a ReLU problem; got "
            f"{type(problem).__name__}; give a number, or leave gamma out"
        )
    shift: torch.Tensor = relative_shift()
    if not bool((shift < math.pi).all()):
        raise ValueError(
            "gamma='corrected' needs a relative shift max_m |Delta_m|/|w_m| < pi; got "
            f"{torch.as_tensor(shift).flatten().tolist()}; give gamma as a number"
        )
    return usual / (1 - shift[..., None] / math.pi)
