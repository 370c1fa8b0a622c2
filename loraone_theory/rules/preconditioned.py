"""Preconditioned (scaled) gradient descent (Eq. 9)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.factors import Params, Scalar
from loraone_theory.linalg import inverse_psd
from loraone_theory.rules.base import Rule, descend


class Dropped(NamedTuple):
    """Bookkeeping of the pseudo-inverses: steps so far, steps with drops, the last of those."""

    step: int
    steps: Tensor  # (...), int64
    last: Tensor  # (...), int64


def preconditioned(learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
    """A ← A − η∇_A (BBᵀ + λI)⁻¹, B ← B − η(AᵀA + λI)⁻¹∇_B, both from time-t values.

    At λ = 0 the inverses are pseudo-inverses: at B = 0 (LoRA-init) A does not move.
    """

    def init(params: Params) -> Dropped:
        A, B = params
        batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        zero = torch.zeros(batch, dtype=torch.int64, device=A.device)
        return Dropped(0, zero, zero)

    def update(params: Params, gradients: Params, state: Dropped) -> tuple[Params, Dropped]:
        (A, B), (grad_A, grad_B) = params, gradients
        right = inverse_psd(B @ B.mT, damping)
        left = inverse_psd(A.mT @ A, damping)
        new = (
            descend(A, grad_A @ right.matrix, learning_rate),
            descend(B, left.matrix @ grad_B, learning_rate),
        )
        drops = torch.minimum(right.kept, left.kept) < A.shape[-1]
        step = state.step + 1
        last = torch.where(drops, step, state.last)
        return new, Dropped(step, state.steps + drops, last)

    return Rule(init, update, equivariant=True, dropped=lambda state: (state.steps, state.last))
