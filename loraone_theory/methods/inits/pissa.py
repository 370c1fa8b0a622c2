"""PiSSA: the principal singular triplets of W become trainable."""

from __future__ import annotations

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods.inits.base import Init, pretrained
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def pissa(scale: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = U_r(Σ_r/s)^{1/2}, B₀ = (Σ_r/s)^{1/2}V_rᵀ from W = UΣVᵀ; offset s A₀B₀.

    Raises:
        ValueError: the problem does not know W.
    """
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        U, S, V = linalg.truncated_svd(pretrained(problem, "pissa"), rank, svd)
        root = (S / scale).sqrt()
        A, B = U * root[..., None, :], root[..., None] * V.mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init
