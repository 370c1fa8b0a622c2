"""The tensors and numbers that a rule's state is made of, in order."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from loraone_theory.methods.rules.base import State

Leaf = Tensor | float | int | bool


def leaves_of(state: State) -> Iterator[Leaf]:
    """Tensors and numbers of a rule's state, in order.

    Raises:
        TypeError: it holds something else.
    """
    if state is None:
        return
    if isinstance(state, (Tensor, int, float)):
        yield state
    elif isinstance(state, (tuple, list)):
        for part in state:
            yield from leaves_of(part)
    else:
        raise TypeError(
            "the state of a rule must be nested tuples of tensors and numbers to be kept; got "
            f"{type(state).__name__}"
        )


def filled(template: State, leaves: Iterator[Leaf]) -> State:
    """A state of the same structure with other leaves."""
    if template is None:
        return None
    if isinstance(template, (Tensor, int, float)):
        return next(leaves)
    parts = [filled(part, leaves) for part in template]
    if hasattr(template, "_fields"):
        return type(template)(*parts)
    return type(template)(parts)
