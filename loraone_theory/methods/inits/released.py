"""The initialisation of the released LoRA-One code (Algorithm 1)."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.factors import Params
from loraone_theory.core.linalg import EXACT, SVD, SVDOptions
from loraone_theory.methods.inits.base import Init, gradient_svd, split
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def released(gamma: float = 128.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = γ^{−1/2} U_r (S_r/σ₁)^{1/2}, B₀ = γ^{−1/2} (S_r/σ₁)^{1/2} V_rᵀ; no offset.

    Hence s A₀B₀ = s/(γσ₁) · (best rank-r part of G). γ divides here; in `spectral` it multiplies.
    """
    gamma = validate.number("gamma", gamma, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        return Start(factors(gradient_svd(problem, rank, svd), gamma))

    return init


def factors(svd: SVD, gamma: float) -> Params:
    """A₀ and B₀ from the triplets of G."""
    return split(svd, (svd.S / svd.S[..., :1] / gamma).sqrt())
