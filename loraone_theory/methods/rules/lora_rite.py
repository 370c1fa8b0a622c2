"""LoRA-RITE's core: adaptive steps that do not depend on the gauge, with moments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.eigen import eigvalsh
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import Inverse, inverse_psd
from loraone_theory.core.roots import psd_root
from loraone_theory.methods.rules.base import (
    SIGNS,
    Betas,
    Drops,
    Rule,
    State,
    check_betas,
    check_rates,
    descend,
)


class _Side(NamedTuple):
    """Moments of one factor, (n, r) and (r, r), in the basis (m, r) of the other one's range."""

    mean: Tensor
    square: Tensor
    basis: Tensor


def _spectrum(M: Tensor) -> Tensor:
    return eigvalsh(torch.where(torch.isfinite(M), M, 0.0))


def lora_rite(
    learning_rate: Scalar,
    damping: Scalar = 0.0,
    betas: Betas = (0.9, 0.999),
    escaped_mass: bool = False,
) -> Rule:
    """A ← A − η·m̂v̂^{−½}N^{−½}, and B likewise, with moments in the basis Q = BᵀN^{−½}.

    N = BBᵀ + λI; ∇̄ = ∇_A N^{−½}, which is 𝒢Q; P = Q_tᵀQ_{t−1} takes the moments along:
    m ← β₁mPᵀ + (1 − β₁)∇̄, v ← β₂PvPᵀ + (1 − β₂)∇̄ᵀ∇̄, m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ). Undamped,
    the step of AB is the same for (AQ, Q⁻¹B). At betas (0, 0) it is that of `lora-muon`. Clipping
    and weight decay of the whole method are left out, and so is its escaped mass unless asked for:
    ρ ← β₂(ρ + max_i|λ_i(v) − λ_i(PvPᵀ)|), and v + ρI in place of v under the root.

    Where r > r* gradients have fewer directions than v: it is inverted at the size of its rounding,
    so that steps are reproducible to √eps only.

    Reference: arXiv 2410.20625.
    """
    check_rates("lora-rite", learning_rate, damping)
    check_betas("lora-rite", betas)
    escapes = validate.flag("escaped_mass", escaped_mass)

    def side(
        G: Tensor, other: Tensor, old: _Side, t: int, rho: Tensor | None
    ) -> tuple[Tensor, _Side, Inverse, Tensor | None]:
        inverse = inverse_psd(other.mT @ other, damping)
        magnified = psd_root(inverse.matrix)
        basis, plain = other @ magnified, G @ magnified
        P = basis.mT @ old.basis
        mean = betas[0] * old.mean @ P.mT + (1 - betas[0]) * plain
        carried = betas[1] * P @ old.square @ P.mT
        square = carried + (1 - betas[1]) * plain.mT @ plain
        one, two = (1 - beta**t for beta in betas)
        under = square
        if rho is not None:
            lost = _spectrum(betas[1] * old.square) - _spectrum(carried)
            rho = betas[1] * rho + lost.abs().amax(-1)[..., None, None]
            under = square + rho * torch.eye(
                square.shape[-1], dtype=square.dtype, device=square.device
            )
        step = mean / one @ psd_root(inverse_psd(under / two).matrix) @ magnified
        return step, _Side(mean, square, basis), inverse, rho

    def init(params: Params) -> State:
        A, Bt = params[0], params[1].mT
        core = A.new_zeros(*A.shape[:-2], A.shape[-1], A.shape[-1])
        zeros = (torch.zeros_like(A), torch.zeros_like(Bt))
        sides = _Side(zeros[0], core, zeros[1]), _Side(zeros[1], core, zeros[0])
        nothing = A.new_zeros(*A.shape[:-2], 1, 1)
        return (*sides, Drops.none(params), *((nothing, nothing) if escapes else ()))

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        A, B = params
        of_A, of_B, drops, *escaped = state
        t = drops.step + 1
        one, two = escaped if escapes else (None, None)
        step_A, of_A, right, one = side(gradients[0], B.mT, of_A, t, one)
        step_B, of_B, left, two = side(gradients[1].mT, A, of_B, t, two)
        new = descend(A, step_A, learning_rate), descend(B, step_B.mT, learning_rate)
        return new, (of_A, of_B, drops.after(left, right), *((one, two) if escapes else ()))

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
