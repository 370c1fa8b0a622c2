"""The initialisation of the first LoRA-One notebook: gradient frames, with an offset."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods.inits.base import Init, complete_frame, gradient_svd
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def early(gamma: float = 16.0, scale: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = ζU_r, B₀ = ζV_rᵀ with ζ = k^{1/4}/√γ from G = U S Vᵀ; offset s A₀B₀.

    Directions beyond the rank of G are a random orthonormal completion, drawn per seed.
    """
    gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        U, S, V = gradient_svd(problem, rank, svd)
        U = complete_frame(U, S, seeds, "early left")
        V = complete_frame(V, S, seeds, "early right")
        zeta = problem.k**0.25 / gamma**0.5
        A, B = zeta * U, zeta * V.mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init
