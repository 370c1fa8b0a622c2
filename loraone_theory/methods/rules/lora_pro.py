"""LoRA-Pro: the low-rank step whose effect on W is nearest to the full gradient's."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import eigen, linalg, validate
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.core.linalg import Inverse, inverse_psd
from loraone_theory.methods.rules.base import (
    ADAM,
    DECAY,
    Betas,
    Drops,
    Local,
    Moments,
    Rule,
    check_adam,
    check_rates,
    checked,
    decay,
    descend,
)


class Projection(NamedTuple):
    """The steps g^A, g^B and the two Gram inverses they took."""

    steps: Factors
    left: Inverse
    right: Inverse


def project(
    params: Params, gradients: Params, damping: Scalar, scale: float, free: Tensor | None = None
) -> Projection:
    """g^A = s⁻²∇_A N⁻¹ + AZ, g^B = s⁻²M⁻¹∇_B(I − P_B) − ZB with M = AᵀA, N = BBᵀ, P_B = BᵀN⁻¹B.

    s(A g^B + g^A B) = P_A𝒢 + (I − P_A)𝒢P_B whatever Z is. Z = `free` where given, else the
    solution of MZ + ZN = −s⁻²Aᵀ∇_A N⁻¹, which keeps the steps nearest to the gradients.
    """
    (A, B), (grad_A, grad_B) = params, gradients
    M, N = A.mT @ A, B @ B.mT
    left, right = inverse_psd(M, damping), inverse_psd(N, damping)
    along = grad_A @ right.matrix / scale**2
    across = left.matrix @ grad_B / scale**2
    Z = sylvester(M, N, -(A.mT @ along)) if free is None else free
    steps = Factors(along + A @ Z, across - (across @ B.mT) @ right.matrix @ B - Z @ B)
    return Projection(steps, left, right)


def project_one(
    params: Params, gradients: Params, damping: Scalar, scale: float, moves: tuple[bool, ...]
) -> Projection:
    """The same where one factor stays: g^A = s⁻²∇_A N⁻¹ alone, or g^B = s⁻²M⁻¹∇_B alone."""
    (A, B), (grad_A, grad_B) = params, gradients
    left, right = inverse_psd(A.mT @ A, damping), inverse_psd(B @ B.mT, damping)
    along = grad_A @ right.matrix / scale**2 if moves[0] else torch.zeros_like(A)
    across = left.matrix @ grad_B / scale**2 if moves[1] else torch.zeros_like(B)
    return Projection(Factors(along, across), left, right)


def sylvester(M: Tensor, N: Tensor, C: Tensor) -> Tensor:
    """Z with MZ + ZN = C for symmetric positive semidefinite M, N (..., r, r).

    Z = U[(UᵀCV)_ij/(λ_i + μ_j)]Vᵀ from M = UΛUᵀ, N = VμVᵀ; zero where λ_i + μ_j is.
    """
    (lam, U), (mu, V) = _eigh(M), _eigh(N)
    total = lam[..., :, None] + mu[..., None, :]
    solvable = total > M.shape[-1] * linalg.eps(M) * total.amax((-2, -1), keepdim=True)
    inner = U.mT @ C @ V
    return U @ torch.where(solvable, inner / torch.where(solvable, total, 1.0), 0.0) @ V.mT


def _eigh(M: Tensor) -> tuple[Tensor, Tensor]:
    # LAPACK refuses non-finite input; the NaN of a diverged run reaches Z through C instead.
    values, vectors = eigen.eigh(torch.where(torch.isfinite(M), M, 0.0))
    return values.clamp_min(0), vectors


def lora_pro(
    learning_rate: Scalar,
    damping: Scalar = 0.0,
    scale: float = 1.0,
    betas: Betas | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    ridge: float = 1e-8,
    moments: Literal["full", "pair"] = "full",
) -> Rule:
    """A ← A − ηg^A, B ← B − ηg^B; with `betas`, AdamW on the equivalent full gradient.

    The AdamW form takes Adam's direction D (d×k) of s(A g^B + g^A B), projects again with sDBᵀ and
    sAᵀD for ∇_A and ∇_B, and decays by (1 − ηw). At B = 0 the first step is g^A = 0,
    g^B = s⁻²M⁻¹∇_B.

    `moments` says what Adam's means are of: "full", as LoRA-Pro has it, of the equivalent gradient,
    two d×k matrices; "pair", of g^A and g^B themselves, as large as the pair. That is Adam on the
    projected steps, another method: its step is not the nearest to AdamW's on W.

    Where one factor stays, g of the other is the nearest to 𝒢 alone: s⁻²M⁻¹∇_B or s⁻²∇_A N⁻¹.

    The Gram inverses take damping + `ridge`, 1e-8 in the released code: a direction that grows out
    of rounding passes any cutoff of a pseudo-inverse, and g^A has 1/σ² there.
    """
    check_rates("lora-pro", learning_rate, damping)
    check_adam("lora-pro", (0.9, 0.999) if betas is None else betas, eps, weight_decay)
    checked("lora-pro", "scale", scale, positive=True)
    checked("lora-pro", "ridge", ridge)
    validate.choice("moments", moments, ("full", "pair"))

    def init(params: Params) -> tuple[Drops, Moments]:
        A, B = params
        of: Params = ()
        if betas is not None:
            of = params if moments == "pair" else (torch.zeros_like(A @ B),)
        return Drops.none(params), Moments.zero(of)

    def update(
        params: Params,
        gradients: Params,
        state: tuple[Drops, Moments],
        moves: tuple[bool, ...] = (True, True),
    ) -> tuple[Params, tuple[Drops, Moments]]:
        (A, B), (drops, means), lam = params, state, damping + ridge

        def projected(gradients: Params) -> Projection:
            if all(moves):
                return project(params, gradients, lam, scale)
            return project_one(params, gradients, lam, scale, moves)

        found = projected(gradients)
        if betas is not None and moments == "pair":
            means = means.after(found.steps, betas)
            found = found._replace(steps=Factors(*means.directions(betas, eps)))
        elif betas is not None:
            equivalent = scale * (A @ found.steps.B + found.steps.A @ B)
            means = means.after((equivalent,), betas)
            (D,) = means.directions(betas, eps)
            found = projected((scale * D @ B.mT, scale * A.mT @ D))
        new = tuple(
            descend(decay(P, learning_rate, weight_decay), g, learning_rate) if moved else P
            for P, g, moved in zip(params, found.steps, moves, strict=True)
        )
        return new, (drops.after(found.left, found.right), means)

    whole = Rule(
        init,
        update,
        equivariant=betas is None,
        dropped=lambda s: (s[0].steps, s[0].last),
        pair=True,
        inverts=True,
        local=Local("full") if betas is None and weight_decay == 0 else None,
        no_rate=DECAY if betas is None else ADAM,
        replays=True,
    )
    return whole._replace(
        partly=lambda moves: whole._replace(update=partial(update, moves=moves), local=None)
    )
