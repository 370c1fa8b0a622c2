"""What an update rule is: a pair of pure functions, made by a factory that takes the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from loraone_theory.factors import Params, Scalar

State = Any


class Rule(NamedTuple):
    """An update rule.

    Args:
        init: trainable tensors -> state.
        update: (trainable, gradients, state) -> (new trainable, new state). Nothing is mutated.
        equivariant: the trajectory rotates with the problem (THEORY 3.1b), so that the exact
            reduction applies. Entrywise rules such as Adam are not equivariant.
        dropped: state -> per run, the number of steps in which a pseudo-inverse dropped
            directions, and the last such step; None for rules that invert nothing.
    """

    init: Callable[[Params], State]
    update: Callable[[Params, Params, State], tuple[Params, State]]
    equivariant: bool
    dropped: Callable[[State], tuple[Tensor, Tensor]] | None = None


def descend(M: Tensor, step: Tensor, learning_rate: Scalar) -> Tensor:
    """M − η·step, for a number or a batch of learning rates."""
    if isinstance(learning_rate, Tensor):
        return M.addcmul(step, learning_rate, value=-1)
    return M.add(step, alpha=-learning_rate)
