"""Muon on every factor: steps along the orthogonal part of the averaged gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import polar
from loraone_theory.methods.rules.base import SIGNS, Rule, check_rates, checked, decay, descend


def muon(
    learning_rate: Scalar, beta: float = 0.0, weight_decay: float = 0.0, scaled: bool = False
) -> Rule:
    """M ← βM + ∇, P ← (1 − ηw)P − η·UVᵀ from M = USVᵀ, for every tensor P.

    UVᵀ is exact, over the singular values above rounding relative to the largest, so a gradient
    that is zero in every bit makes no step. One that is zero but for the rounding of what it is
    made of, which a rule does not know, makes a full step along that rounding: from LoRA-GA's
    start, where ∇_A = −GB₀ᵀ = 0, A moves by η. With `scaled` the step is η‖M‖_*·UVᵀ, ‖M‖_* the
    sum of the singular values: steepest descent in the spectral norm, which shrinks with the
    gradient. Rotations turn a step along; Q and Q⁻¹ between the factors change that of AB.

    Reference: arXiv 2602.06385, per factor.
    """
    check_rates("muon", learning_rate)
    checked("muon", "beta", beta, below=1.0, remedy="0.95 is usual, 0 takes each gradient alone")
    checked("muon", "weight_decay", weight_decay)
    scaled = validate.flag("scaled of rule 'muon'", scaled)

    def direction(M: Tensor) -> Tensor:
        found = polar(M)
        return (found * M).sum((-2, -1), keepdim=True) * found if scaled else found

    def init(params: Params) -> Params:
        return tuple(torch.zeros_like(P) for P in params)

    def update(params: Params, gradients: Params, state: Params) -> tuple[Params, Params]:
        means = tuple(G.add(M, alpha=beta) for G, M in zip(gradients, state, strict=True))
        stepped = (
            descend(decay(P, learning_rate, weight_decay), direction(M), learning_rate)
            for P, M in zip(params, means, strict=True)
        )
        return tuple(stepped), means

    return Rule(init, update, equivariant=True, no_rate=SIGNS)
