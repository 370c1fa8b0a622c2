"""Gradient descent with heavy-ball momentum."""

from __future__ import annotations

import torch

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import (
    DECAY,
    Local,
    Rule,
    check_rates,
    checked,
    decay,
    descend,
    with_l2,
)


def momentum(
    learning_rate: Scalar, beta: float = 0.9, weight_decay: float = 0.0, l2: float = 0.0
) -> Rule:
    """M ← βM + ∇, P ← P − ηM for every tensor P, with M = 0 at the start; β = 0 is `gd`.

    `weight_decay` w is decoupled, P ← (1 − ηw)P − ηM; `l2` w adds wP to ∇, so that M has it.

    Reference: Polyak's heavy ball, in the form of torch.optim.SGD without dampening, whose
    weight_decay is `l2`.
    """
    check_rates("momentum", learning_rate)
    checked("momentum", "beta", beta, below=1.0, remedy="0.9 is usual")
    checked("momentum", "weight_decay", weight_decay)
    checked("momentum", "l2", l2)

    def init(params: Params) -> Params:
        return tuple(torch.zeros_like(P) for P in params)

    def update(params: Params, gradients: Params, state: Params) -> tuple[Params, Params]:
        gradients = with_l2(gradients, params, l2)
        ball = tuple(G.add(M, alpha=beta) for G, M in zip(gradients, state, strict=True))
        stepped = (
            descend(decay(P, learning_rate, weight_decay), M, learning_rate)
            for P, M in zip(params, ball, strict=True)
        )
        return tuple(stepped), ball

    free = weight_decay == l2 == 0
    local = Local(momentum=beta) if free else None
    return Rule(init, update, equivariant=True, local=local, no_rate=DECAY, replays=True)
