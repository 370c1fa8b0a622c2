"""LoRA-Muon: orthogonal steps in the metric of the other factor."""

from __future__ import annotations

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd, polar
from loraone_theory.core.roots import psd_root
from loraone_theory.methods.rules.base import SIGNS, Drops, Rule, check_rates, descend


def lora_muon(learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
    """A ← A − η·msign(∇_A N^{−½})N^{−½}, B ← B − η·M^{−½}msign(M^{−½}∇_B), from time-t values.

    M = AᵀA + λI, N = BBᵀ + λI, msign(USVᵀ) = UVᵀ. Undamped, the step of AB is the same for
    (AQ, Q⁻¹B); it is that of LoRA-RITE's core without momentum. A gradient that is zero but for
    the rounding of what it is made of makes a full step along that rounding, as with `muon`.

    Reference: arXiv 2606.12921; arXiv 2410.20625, Eq. 12.
    """
    check_rates("lora-muon", learning_rate, damping)

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (A, B), (grad_A, grad_B) = params, gradients
        left, right = inverse_psd(A.mT @ A, damping), inverse_psd(B @ B.mT, damping)
        P, Q = psd_root(left.matrix), psd_root(right.matrix)
        new = (
            descend(A, polar(grad_A @ Q) @ Q, learning_rate),
            descend(B, P @ polar(P @ grad_B), learning_rate),
        )
        return new, state.after(left, right)

    return Rule(
        Drops.none,
        update,
        equivariant=True,
        dropped=lambda state: (state.steps, state.last),
        pair=True,
        inverts=True,
        no_rate=SIGNS,
    )
