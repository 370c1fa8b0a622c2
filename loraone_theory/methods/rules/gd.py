"""Gradient descent (Eq. 4)."""

from __future__ import annotations

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Descent, Local, Rule, State, descend


def gd(learning_rate: Scalar) -> Rule:
    """A ← A − η∇_A, B ← B − η∇_B, both from time-t values; any set of tensors."""

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        stepped = (descend(P, G, learning_rate) for P, G in zip(params, gradients, strict=True))
        return tuple(stepped), state

    return Rule(
        lambda params: None,
        update,
        equivariant=True,
        descent=Descent(learning_rate),
        local=Local(),
    )
