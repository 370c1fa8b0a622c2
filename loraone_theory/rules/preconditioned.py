"""Preconditioned (scaled) gradient descent (Eq. 9)."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.factors import Params, Scalar
from loraone_theory.linalg import inverse_psd
from loraone_theory.rules.base import Drops, Rule, descend


def preconditioned(learning_rate: Scalar, damping: Scalar = 0.0, adaptive: float = 0.0) -> Rule:
    """A ← A − η∇_A (BBᵀ + λ_tI)⁻¹, B ← B − η(AᵀA + λ_tI)⁻¹∇_B, both from time-t values.

    λ_t = λ + c·ρ_t with c = `adaptive` and ρ_t² = ⟨∇_A, ∇_A(BBᵀ)†⟩ + ⟨∇_B, (AᵀA)†∇_B⟩. A rule sees
    no risk; ρ_t = s√(‖𝒢P_B‖_F² + ‖P_A𝒢‖_F²) stands in for √risk_t because it is linear in the
    residual, and stays so where r > r* and factors shrink with the residual, where plain gradient
    norms vanish faster. At λ_t = 0 the inverses are pseudo-inverses: at B = 0 (LoRA-init) A does
    not move.
    """

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (A, B), (grad_A, grad_B) = params, gradients
        M, N, lam = A.mT @ A, B @ B.mT, damping
        if adaptive > 0:
            lam = damping + adaptive * _residual_size(M, N, grad_A, grad_B)
        left, right = inverse_psd(M, lam), inverse_psd(N, lam)
        new = (
            descend(A, grad_A @ right.matrix, learning_rate),
            descend(B, left.matrix @ grad_B, learning_rate),
        )
        return new, state.after(left, right)

    return Rule(
        Drops.none, update, equivariant=True, dropped=lambda state: (state.steps, state.last)
    )


def _residual_size(M: Tensor, N: Tensor, grad_A: Tensor, grad_B: Tensor) -> Tensor:
    """ρ, shape (..., 1, 1)."""
    of_A = (grad_A * (grad_A @ inverse_psd(N).matrix)).sum((-2, -1), keepdim=True)
    of_B = (grad_B * (inverse_psd(M).matrix @ grad_B)).sum((-2, -1), keepdim=True)
    return (of_A + of_B).clamp_min(0).sqrt()
