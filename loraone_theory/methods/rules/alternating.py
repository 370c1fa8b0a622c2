"""Alternating preconditioned gradient descent: B steps from where A has gone."""

from __future__ import annotations

from collections.abc import Callable

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.methods.rules.base import Drops, Rule, check_rates, descend, in_turn


def alternating(learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
    """A⁺ = A − η∇_A(A, B)(BBᵀ + λI)⁻¹, then B⁺ = B − η(A⁺ᵀA⁺ + λI)⁻¹∇_B(A⁺, B).

    Two gradients in each step. At the population and r = r* it contracts by |1 − η|, where steps
    from time-t values contract by max(|1 − η|, |1 − 2η|).

    Reference: APGD, arXiv 2502.00463; AltLoRA without momentum, arXiv 2505.12455.
    """
    check_rates("alternating", learning_rate, damping)

    def advance(
        params: Params, gradients: Callable[[Params], Params], state: Drops
    ) -> tuple[Params, Drops]:
        A, B = params
        right = inverse_psd(B @ B.mT, damping)
        A = descend(A, gradients((A, B))[0] @ right.matrix, learning_rate)
        left = inverse_psd(A.mT @ A, damping)
        B = descend(B, left.matrix @ gradients((A, B))[1], learning_rate)
        return (A, B), state.after(left, right)

    return in_turn("alternating", advance, replays=True)
