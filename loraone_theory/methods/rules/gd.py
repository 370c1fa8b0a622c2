"""Gradient descent (Eq. 4)."""

from __future__ import annotations

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import (
    DECAY,
    Descent,
    Local,
    Rule,
    State,
    check_rates,
    checked,
    decay,
    descend,
    with_l2,
)


def gd(learning_rate: Scalar, weight_decay: float = 0.0, l2: float = 0.0) -> Rule:
    """A ← A − η∇_A, B ← B − η∇_B, both from time-t values; any set of tensors.

    `weight_decay` w is decoupled, P ← (1 − ηw)P − η∇; `l2` w adds ½w‖P‖_F² to the loss, which
    here is the same step.
    """
    check_rates("gd", learning_rate)
    checked("gd", "weight_decay", weight_decay)
    checked("gd", "l2", l2)
    free = weight_decay == l2 == 0

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        gradients = with_l2(gradients, params, l2)
        stepped = (
            descend(decay(P, learning_rate, weight_decay), G, learning_rate)
            for P, G in zip(params, gradients, strict=True)
        )
        return tuple(stepped), state

    return Rule(
        lambda params: None,
        update,
        equivariant=True,
        descent=Descent(learning_rate) if free else None,
        local=Local() if free else None,
        no_rate=DECAY,
        replays=True,
    )
