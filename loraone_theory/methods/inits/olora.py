"""OLoRA: an orthonormal B from the QR factorisation of W."""

from __future__ import annotations

import torch

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.methods.inits.base import Init, pretrained
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def olora(scale: float = 1.0) -> Init:
    """B₀ = Q_{:r}ᵀ, A₀ = (R_{:r})ᵀ from Wᵀ = QR; offset s A₀B₀, the factors not divided by s.

    Raises:
        ValueError: the problem does not know W.
    """
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        Q, R = torch.linalg.qr(pretrained(problem, "olora").mT)
        A, B = R[..., :rank, :].mT, Q[..., :rank].mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init
