"""LoRA-RITE's core: adaptive steps that do not depend on the gauge, with moments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import Inverse, inverse_psd
from loraone_theory.core.roots import psd_root
from loraone_theory.methods.rules.base import (
    Betas,
    Drops,
    Rule,
    State,
    check_betas,
    check_rates,
    descend,
)

SIGNS = "no rate: orthogonalised steps do not shrink with the gradient"


class _Side(NamedTuple):
    """Moments of one factor, (n, r) and (r, r), in the basis (m, r) of the other one's range."""

    mean: Tensor
    square: Tensor
    basis: Tensor


def lora_rite(learning_rate: Scalar, damping: Scalar = 0.0, betas: Betas = (0.9, 0.999)) -> Rule:
    """A ← A − η·m̂v̂^{−½}N^{−½}, and B likewise, with moments in the basis Q = BᵀN^{−½}.

    N = BBᵀ + λI; ∇̄ = ∇_A N^{−½}, which is 𝒢Q; P = Q_tᵀQ_{t−1} takes the moments along:
    m ← β₁mPᵀ + (1 − β₁)∇̄, v ← β₂PvPᵀ + (1 − β₂)∇̄ᵀ∇̄, m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ). Undamped,
    the step of AB is the same for (AQ, Q⁻¹B). At betas (0, 0) it is that of `lora-muon`. Without
    the escaped mass, clipping and weight decay of the whole method.

    Reference: arXiv 2410.20625.
    """
    check_rates("lora-rite", learning_rate, damping)
    check_betas("lora-rite", betas)

    def side(G: Tensor, other: Tensor, old: _Side, t: int) -> tuple[Tensor, _Side, Inverse]:
        inverse = inverse_psd(other.mT @ other, damping)
        magnified = psd_root(inverse.matrix)
        basis, plain = other @ magnified, G @ magnified
        P = basis.mT @ old.basis
        mean = betas[0] * old.mean @ P.mT + (1 - betas[0]) * plain
        square = betas[1] * P @ old.square @ P.mT + (1 - betas[1]) * plain.mT @ plain
        one, two = (1 - beta**t for beta in betas)
        step = mean / one @ psd_root(inverse_psd(square / two).matrix) @ magnified
        return step, _Side(mean, square, basis), inverse

    def init(params: Params) -> State:
        A, Bt = params[0], params[1].mT
        core = A.new_zeros(*A.shape[:-2], A.shape[-1], A.shape[-1])
        zeros = (torch.zeros_like(A), torch.zeros_like(Bt))
        return _Side(zeros[0], core, zeros[1]), _Side(zeros[1], core, zeros[0]), Drops.none(params)

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        A, B = params
        of_A, of_B, drops = state
        t = drops.step + 1
        step_A, of_A, right = side(gradients[0], B.mT, of_A, t)
        step_B, of_B, left = side(gradients[1].mT, A, of_B, t)
        new = descend(A, step_A, learning_rate), descend(B, step_B.mT, learning_rate)
        return new, (of_A, of_B, drops.after(left, right))

    return Rule(
        init,
        update,
        equivariant=True,
        dropped=lambda state: (state[2].steps, state[2].last),
        pair=True,
        inverts=True,
        no_rate=SIGNS,
        replays=True,
    )
