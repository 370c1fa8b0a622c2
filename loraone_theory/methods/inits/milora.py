"""MiLoRA: the minor singular triplets of W become trainable."""

from __future__ import annotations

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.methods.inits.base import Init, pretrained
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def milora(scale: float = 1.0) -> Init:
    """A₀ = U_{-r}(Σ_{-r}/s)^{1/2}, B₀ = (Σ_{-r}/s)^{1/2}V_{-r}ᵀ: W's last r triplets; offset.

    Raises:
        ValueError: the problem does not know W.
    """
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        W = pretrained(problem, "milora")
        svd = linalg.truncated_svd(W, min(W.shape[-2:]))
        U, S, V = (part[..., -rank:] for part in svd)
        root = (S / scale).sqrt()
        A, B = U * root[..., None, :], root[..., None] * V.mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init
