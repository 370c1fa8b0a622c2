"""Muon on every factor: steps along the orthogonal part of the averaged gradient."""

from __future__ import annotations

import torch

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import polar
from loraone_theory.methods.rules.base import Rule, check_rates, checked, decay, descend

SIGNS = "no rate: orthogonalised steps do not shrink with the gradient"


def muon(learning_rate: Scalar, beta: float = 0.0, weight_decay: float = 0.0) -> Rule:
    """M ← βM + ∇, P ← (1 − ηw)P − η·UVᵀ from M = USVᵀ, for every tensor P.

    UVᵀ is exact, over the singular values that are not zero to rounding, so a zero gradient makes
    no step. Rotations turn it along; Q and Q⁻¹ between the factors change the step of AB.

    Reference: arXiv 2602.06385, per factor.
    """
    check_rates("muon", learning_rate)
    checked("muon", "beta", beta, below=1.0, remedy="0.95 is usual, 0 takes each gradient alone")
    checked("muon", "weight_decay", weight_decay)

    def init(params: Params) -> Params:
        return tuple(torch.zeros_like(P) for P in params)

    def update(params: Params, gradients: Params, state: Params) -> tuple[Params, Params]:
        means = tuple(G.add(M, alpha=beta) for G, M in zip(gradients, state, strict=True))
        stepped = (
            descend(decay(P, learning_rate, weight_decay), polar(M), learning_rate)
            for P, M in zip(params, means, strict=True)
        )
        return tuple(stepped), means

    return Rule(init, update, equivariant=True, no_rate=SIGNS)
