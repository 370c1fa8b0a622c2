"""Gradient descent with heavy-ball momentum."""

from __future__ import annotations

import torch

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Local, Rule, descend


def momentum(learning_rate: Scalar, beta: float = 0.9) -> Rule:
    """M ← βM + ∇, P ← P − ηM for every tensor P, with M = 0 at the start; β = 0 is `gd`.

    Reference: Polyak's heavy ball, in the form of torch.optim.SGD without dampening.
    """

    def init(params: Params) -> Params:
        return tuple(torch.zeros_like(P) for P in params)

    def update(params: Params, gradients: Params, state: Params) -> tuple[Params, Params]:
        ball = tuple(G.add(M, alpha=beta) for G, M in zip(gradients, state, strict=True))
        stepped = (descend(P, M, learning_rate) for P, M in zip(params, ball, strict=True))
        return tuple(stepped), ball

    return Rule(init, update, equivariant=True, local=Local(momentum=beta))
