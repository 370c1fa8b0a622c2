"""LoRA+: gradient descent with a larger step for B."""

from __future__ import annotations

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import (
    DECAY,
    Descent,
    Local,
    Rule,
    State,
    check_rates,
    check_ratio,
    checked,
    decay,
    descend,
    with_l2,
)


def lora_plus(
    learning_rate: Scalar, ratio: float = 16.0, weight_decay: float = 0.0, l2: float = 0.0
) -> Rule:
    """A ← A − η∇_A, B ← B − λη∇_B with λ = `ratio` >= 1.

    `weight_decay` w is decoupled, with each factor's own rate: (1 − ηw)A and (1 − ληw)B; `l2` w
    adds ½w(‖A‖_F² + ‖B‖_F²) to the loss, which here is the same step.
    """
    check_rates("lora-plus", learning_rate)
    check_ratio("lora-plus", ratio)
    checked("lora-plus", "weight_decay", weight_decay)
    checked("lora-plus", "l2", l2)
    free = weight_decay == l2 == 0

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        gradients = with_l2(gradients, params, l2)
        rates = (learning_rate, ratio * learning_rate)
        new = (
            descend(decay(P, rate, weight_decay), G, rate)
            for P, G, rate in zip(params, gradients, rates, strict=True)
        )
        return tuple(new), state

    return Rule(
        lambda params: None,
        update,
        equivariant=True,
        descent=Descent(learning_rate, ratio) if free else None,
        pair=True,
        local=Local(ratio=ratio) if free else None,
        no_rate=DECAY,
        replays=True,
    )
