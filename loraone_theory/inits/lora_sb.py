"""LoRA-SB: frozen singular frames of one gradient step, trained r×r core."""

from __future__ import annotations

import torch

from loraone_theory.inits.base import Init, complete_frame, gradient_svd
from loraone_theory.linalg import EXACT, SVDOptions
from loraone_theory.parametrisations import Start
from loraone_theory.problems.base import Problem


def lora_sb(step: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A = U_r, B = V_rᵀ frozen and R₀ = S_r of D = η₀ G with η₀ = `step`; no offset.

    This is the plain-gradient form. Directions beyond the rank of G are a random orthonormal
    completion, drawn per seed.
    """

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        U, S, V = gradient_svd(problem, rank, svd)
        U = complete_frame(U, S, seeds, "LoRA-SB left")
        V = complete_frame(V, S, seeds, "LoRA-SB right")
        return Start((torch.diag_embed(step * S),), frozen=(U, V.mT))

    return init
