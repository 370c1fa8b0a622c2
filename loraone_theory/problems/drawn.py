"""Samplers leave in a problem what it was drawn by, so that it can be drawn again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from loraone_theory.core.plain import plain

# Sampler -> its arguments' defaults as a recipe has them, put there by `drawn`.
DEFAULTS: dict[str, dict[str, Any]] = {}

P = ParamSpec("P")
T = TypeVar("T")


def drawn(sampler: Callable[P, T]) -> Callable[P, T]:
    """Let a sampler state its name and every argument, as JSON has them, in `recipe`.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> recipe = sample_linear(d=4, k=3, true_rank=1, samples=9, seeds=range(2)).recipe
    >>> recipe["sampler"], recipe["samples"], recipe["seeds"], recipe["dtype"]
    ('sample_linear', 9, [0, 1], 'float64')
    """
    signature = inspect.signature(sampler)
    DEFAULTS[sampler.__name__] = {
        name: _written(parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }

    @functools.wraps(sampler)
    def make(*args: P.args, **kwargs: P.kwargs) -> T:
        problem = sampler(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        recipe = {name: _written(value) for name, value in given.items()}
        object.__setattr__(problem, "recipe", {"sampler": sampler.__name__, **recipe})
        return problem

    return make


def _written(value: Any) -> Any:
    """A value as JSON has it; functions by their full names."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else plain(value)
