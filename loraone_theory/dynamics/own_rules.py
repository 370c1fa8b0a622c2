"""A step of a rule of the user's own, held to what the loop relies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from loraone_theory.core.factors import Params
from loraone_theory.core.wording import kind
from loraone_theory.dynamics.leaves import leaves_of


def held(name: str, params: Params, state: Any, step: Callable[..., Any]) -> tuple[Params, Any]:
    """step(params, state), refused where going back to them would not be possible.

    Args:
        name: of the rule, for messages.
        params: trainable tensors.
        state: the rule's.
        step: (params, state) -> (new params, new state).

    Raises:
        TypeError: it wrote to tensors that it was handed, holds a state that cannot be kept, or
            returned something else.
        ValueError: tensors of another shape, dtype or device.
    """
    given = [*params, *(leaf for leaf in leaves_of(state) if isinstance(leaf, Tensor))]
    before = [tensor._version for tensor in given]
    made = step(params, state)
    if [tensor._version for tensor in given] != before:
        raise TypeError(
            f"rule {name!r} must not write to the tensors or the state that it is handed, which "
            "are gone back to; got tensors changed in place; make new ones, M = beta * M + G"
        )
    if not isinstance(made, tuple) or len(made) != 2:
        raise TypeError(
            f"update of rule {name!r} must return (new tensors, new state); got {kind(made)}; "
            "a rule without state returns the one that it was handed"
        )
    new, after = made
    if not isinstance(new, (tuple, list)) or len(new) != len(params):
        count = len(new) if isinstance(new, (tuple, list)) else kind(new)
        raise TypeError(
            f"update of rule {name!r} must return a tuple of {len(params)} new tensors, and the "
            f"state; got {count} in place of the tensors"
        )
    for i, (old, now) in enumerate(zip(params, new, strict=True)):
        _same_kind(name, i, old, now)
    return tuple(new), after


def _same_kind(name: str, i: int, old: Tensor, now: Any) -> None:
    if not isinstance(now, Tensor):
        raise TypeError(f"tensor {i} of rule {name!r} must stay a tensor; got {kind(now)}")
    if (now.shape, now.dtype, now.device) != (old.shape, old.dtype, old.device):
        wanted, found = (f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (old, now))
        raise ValueError(
            f"tensor {i} of rule {name!r} must stay {wanted}; got {found}; "
            "lt.testing.check_rule(factory) says more"
        )
