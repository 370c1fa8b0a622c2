"""Descent whose steps are scaled by the spectral norm of the other factor."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core.eigen import eigvalsh
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Rule, check_rates, descend


def spectral_scaled(learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
    """A ← A − η∇_A/(‖B‖_op² + λ), B ← B − η∇_B/(‖A‖_op² + λ), both from time-t values.

    ‖B‖_op² is the curvature in A of ½‖AB − T‖_F²: a number in place of the matrix BBᵀ of
    preconditioned descent. Steps of AB are the same for cQ with Q orthogonal between the factors,
    not for every Q. Where a factor is zero, its partner's gradient is too, and makes no step.
    """
    check_rates("spectral-scaled", learning_rate, damping)

    def update(params: Params, gradients: Params, state: None) -> tuple[Params, None]:
        A, B = params
        grad_A, grad_B = gradients
        by_B, by_A = _square(B) + damping, _square(A) + damping
        new = (
            descend(A, torch.where(by_B > 0, grad_A / by_B, 0 * grad_A), learning_rate),
            descend(B, torch.where(by_A > 0, grad_B / by_A, 0 * grad_B), learning_rate),
        )
        return new, None

    return Rule(
        lambda params: None,
        update,
        equivariant=True,
        pair=True,
        inverts=True,
        no_rate="no rate: the scale of its steps moves with the factors",
        replays=True,
    )


def _square(M: Tensor) -> Tensor:
    """‖M‖_op² (..., 1, 1) from the smaller Gram matrix; NaN where it is not finite."""
    gram = M @ M.mT if M.shape[-2] <= M.shape[-1] else M.mT @ M
    finite = torch.isfinite(gram).all(-1).all(-1)[..., None, None]
    top = eigvalsh(torch.where(finite, gram, 0.0))[..., -1:, None]
    return torch.where(finite, top, torch.nan)
