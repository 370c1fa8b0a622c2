"""LoRA-SB: frozen singular frames of one gradient step, trained r×r core."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods.inits.base import (
    Init,
    complete_frame,
    gradient_svd,
    refuse_unknown_basis,
)
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def lora_sb(step: float = 1.0, signed: bool = False, svd: SVDOptions = EXACT) -> Init:
    """A = U_r, B = V_rᵀ frozen and R₀ = S_r of D = η₀ G with η₀ = `step`; no offset.

    `signed` takes D = η₀ sign(G), Adam's first step, as the released code does. Directions beyond
    the rank of D are a random orthonormal completion, drawn per seed.

    Raises:
        ValueError: G = 0, or `signed` on a problem known up to a rotation only.
    """
    step = validate.number("step", step, positive=True)
    validate.flag("signed", signed)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        found = gradient_svd(problem, rank, svd)
        if signed:
            refuse_unknown_basis(problem, "lora-sb with signed=True")
            G = problem.one_step_gradient()
            dense = G if isinstance(G, Tensor) else G.dense()
            found = linalg.truncated_svd(dense.sign(), rank, svd)
        U, S, V = found
        U = complete_frame(U, S, seeds, "LoRA-SB left")
        V = complete_frame(V, S, seeds, "LoRA-SB right")
        return Start((torch.diag_embed(step * S),), frozen=(U, V.mT))

    return init
