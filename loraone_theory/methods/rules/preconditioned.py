"""Preconditioned (scaled) gradient descent (Eq. 9)."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.core import tall
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.methods.rules.base import (
    DECAY,
    MOVING,
    Descent,
    Drops,
    Local,
    Rule,
    check_rates,
    checked,
    decay,
    descend,
    relative_damping,
    with_l2,
)


def preconditioned(
    learning_rate: Scalar,
    damping: Scalar = 0.0,
    adaptive: float = 0.0,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    relative: float = 0.0,
) -> Rule:
    """A ← A − η∇_A (BBᵀ + λ_tI)⁻¹, B ← B − η(AᵀA + λ_tI)⁻¹∇_B, both from time-t values.

    λ_t = λ + c·ρ_t with c = `adaptive` and ρ_t² = ⟨∇_A, ∇_A(BBᵀ)†⟩ + ⟨∇_B, (AᵀA)†∇_B⟩. A rule sees
    no risk; ρ_t = s√(‖𝒢P_B‖_F² + ‖P_A𝒢‖_F²) stands in for √risk_t because it is linear in the
    residual, and stays so where r > r* and factors shrink with the residual, where plain gradient
    norms vanish faster. At λ_t = 0 the inverses are pseudo-inverses: at B = 0 (LoRA-init) A does
    not move.

    With c = `relative` the inverses of BBᵀ and AᵀA take cλ_min(BBᵀ) and cλ_min(AᵀA) on top: a
    regulariser on the factors' own scale, which leaves the rate independent of κ and of the size
    of Δ where a constant one does not.

    `weight_decay` w is decoupled, P ← (1 − ηw)P and then the step; `l2` w adds wP to ∇_P, so that
    it is preconditioned with the rest.
    """
    check_rates("preconditioned", learning_rate, damping)
    checked("preconditioned", "adaptive", adaptive)
    checked("preconditioned", "weight_decay", weight_decay)
    checked("preconditioned", "l2", l2)
    checked("preconditioned", "relative", relative)
    free = weight_decay == l2 == 0

    def inverses(
        params: Params, state: Drops, lam: Scalar = damping
    ) -> tuple[Tensor, Tensor, Drops]:
        A, B = params
        left, right = (
            inverse_psd(M, relative_damping(M, lam, relative)) for M in (tall.inner(A, A), B @ B.mT)
        )
        return left.matrix, right.matrix, state.after(left, right)

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (A, B), (grad_A, grad_B) = params, with_l2(gradients, params, l2)
        lam = damping
        if adaptive > 0:
            lam = damping + adaptive * _residual_size(A.mT @ A, B @ B.mT, grad_A, grad_B)
        left, right, state = inverses(params, state, lam)
        new = (
            descend(decay(A, learning_rate, weight_decay), grad_A @ right, learning_rate),
            descend(decay(B, learning_rate, weight_decay), left @ grad_B, learning_rate),
        )
        return new, state

    return Rule(
        Drops.none,
        update,
        equivariant=True,
        dropped=lambda state: (state.steps, state.last),
        descent=Descent(learning_rate, inverses=inverses) if free and adaptive == 0 else None,
        pair=True,
        inverts=True,
        local=Local("preconditioned") if free and relative == 0 else None,
        no_rate=MOVING if free else DECAY,
        replays=True,
    )


def _residual_size(M: Tensor, N: Tensor, grad_A: Tensor, grad_B: Tensor) -> Tensor:
    """ρ, shape (..., 1, 1)."""
    of_A = (grad_A * (grad_A @ inverse_psd(N).matrix)).sum((-2, -1), keepdim=True)
    of_B = (grad_B * (inverse_psd(M).matrix @ grad_B)).sum((-2, -1), keepdim=True)
    return (of_A + of_B).clamp_min(0).sqrt()
