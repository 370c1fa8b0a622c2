"""Backward passes while a training step runs: how many, and whether their loss was scaled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


class Passes:
    """What is seen of the backward passes.

    Attributes:
        done: outermost passes that reached a target. Re-entrant checkpointing runs further ones
            inside, which belong to it.
        scaled: how the loss was scaled, where somebody was seen doing it.
    """

    def __init__(self) -> None:
        self.done = 0
        self.scaled: set[str] = set()
        self._depth = 0
        self._reached = False

    def reached(self) -> None:
        """A target has got a gradient.

        Raises:
            RuntimeError: outside of any pass that torch.autograd.backward started.
        """
        if self._depth == 0:
            raise RuntimeError(
                "backward passes must go through loss.backward() or torch.autograd.backward, "
                "which are counted; got a gradient from elsewhere"
            )
        self._reached = True

    @contextmanager
    def one(self) -> Iterator[None]:
        """A pass, or one inside a pass."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.done += self._reached
                self._reached = False


@contextmanager
def watched() -> Iterator[Passes]:
    """Count the backward passes of this block, and notice scaled losses."""
    passes = Passes()
    run = torch.autograd.backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with passes.one():
            return run(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(_replaced(torch.autograd, "backward", backward))
        for owner, name, factor in _scalers():
            noted = _noted(getattr(owner, name), factor, passes)
            stack.enter_context(_replaced(owner, name, noted))
        yield passes


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


Factor = Callable[[Any], float]


def _scalers() -> Iterator[tuple[Any, str, Factor]]:
    """Methods that scale a loss, and by what, given the object."""
    yield torch.amp.GradScaler, "scale", lambda scaler: float(scaler.get_scale())
    accelerate = sys.modules.get("accelerate")
    if accelerate is not None:
        yield accelerate.Accelerator, "backward", lambda it: 1 / it.gradient_accumulation_steps


def _noted(method: Callable[..., Any], factor: Factor, passes: Passes) -> Callable[..., Any]:
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        by = factor(self)
        if by != 1:
            passes.scaled.add(f"{type(self).__name__} scaled it by {by:g}")
        return method(self, *args, **kwargs)

    return noting
