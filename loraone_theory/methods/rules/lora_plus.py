"""LoRA+: gradient descent with a larger step for B."""

from __future__ import annotations

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Descent, Local, Rule, State, descend


def lora_plus(learning_rate: Scalar, ratio: float = 16.0) -> Rule:
    """A ← A − η∇_A, B ← B − λη∇_B with λ = `ratio` >= 1."""

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        (A, B), (grad_A, grad_B) = params, gradients
        new = (descend(A, grad_A, learning_rate), descend(B, grad_B, ratio * learning_rate))
        return new, state

    return Rule(
        lambda params: None,
        update,
        equivariant=True,
        descent=Descent(learning_rate, ratio),
        pair=True,
        local=Local(ratio=ratio),
    )
