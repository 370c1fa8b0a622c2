"""The names that a sweep may set: of a sampler, of a run, of a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

from loraone_theory.core import validate
from loraone_theory.dynamics.batches import SAMPLING
from loraone_theory.dynamics.engine import ENGINES
from loraone_theory.dynamics.settings import REDUCE
from loraone_theory.problems.linear.laws import LAWS, STUDENT
from loraone_theory.problems.relu.sampling import ColumnLaw
from loraone_theory.problems.sensing.operators import OPERATORS

# Arguments of `simulate` that a sweep sets, or lets vary.
RUN = (
    "method",
    "rank",
    "learning_rate",
    "steps",
    "init_std",
    "damping",
    "every",
    "until",
    "batch_size",
    "sampling",
    "reduce",
    "engine",
)
# Sampler and method first.
NEEDED = ("sampler", "method", "rank", "learning_rate", "steps")
# A number of samples or measurements in proportion to the size of the problem.
RATIO = "sample_ratio"
COUNTS = ("samples", "measurements")
# What simulate runs as one batch, in the order of its axes; seeds are the last.
BATCHED = ("init_std", "learning_rate", "damping", "seed")
# The recorded steps, beside a curve.
STEP = "step"
# Names of the variables and coordinates that a result may have besides the measures.
KEPT = ("outcome", "stopped_at", "used_learning_rate", "reason", STEP)


def _count(name: str, given: Any) -> Any:
    return validate.integer(name, given, least=1)


def _positive(name: str, given: Any) -> Any:
    return validate.number(name, given, positive=True)


def _one_of(options: Iterable[str]) -> Callable[[str, Any], Any]:
    return lambda name, given: validate.choice(name, given, options)


def _law(name: str, given: Any) -> Any:
    return given if callable(given) else validate.choice(name, given, (*LAWS, *STUDENT))


# What a single value has to be; what is not here is left to who takes it.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("d", "k", "true_rank", *COUNTS, "rank", "steps", "every"), _count),
    **dict.fromkeys((RATIO, "relative_shift", "init_std", "freedom"), _positive),
    **dict.fromkeys(("noise_std", "damping"), validate.number),
    "condition_number": lambda name, given: validate.at_least(name, given, 1.0),
    "batch_size": lambda name, given: given if given is None else _count(name, given),
    "seed": lambda name, given: validate.integer(name, given, least=0),
    "reduce": _one_of(REDUCE),
    "engine": _one_of(ENGINES),
    "sampling": lambda name, given: given if given is None else _one_of(SAMPLING)(name, given),
    "dtype": lambda name, given: str(validate.dtype(given)).removeprefix("torch."),
    "device": lambda name, given: str(validate.device(given)),
}

# Of the numbers above, as coordinates of a result: unit, and what it is.
COORDINATES: dict[str, tuple[str, str]] = {
    "d": ("1", "input width d"),
    "k": ("1", "output width k"),
    "true_rank": ("1", "rank r* of the shift"),
    "samples": ("1", "samples N"),
    "measurements": ("1", "measurements m"),
    RATIO: ("1", "samples N over d, or measurements m over r*(d + k − r*)"),
    "condition_number": ("1", "condition number κ of the shift"),
    "noise_std": ("1", "standard deviation σ of the label noise"),
    "relative_shift": ("1", "relative shift c"),
    "freedom": ("1", "degrees of freedom ν of Student inputs"),
    "rank": ("1", "rank r of the factors"),
    "init_std": ("1", "standard deviation α of the entries of A₀"),
    "learning_rate": ("1", "learning rate η"),
    "damping": ("1", "damping λ"),
    "steps": ("step", "number of steps T"),
    "every": ("step", "steps from one record to the next"),
    "batch_size": ("1", "rows b of the gradient of a step"),
    "seed": ("1", "seed of the trial"),
    STEP: ("step", "recorded step t"),
}

# What the arguments of the library's own samplers have to be; those of others are theirs.
OF_SAMPLERS: dict[str, Callable[[str, Any], Any]] = {
    "ensemble": _one_of(OPERATORS),
    "inputs": _law,
    "columns": _one_of(get_args(ColumnLaw)),
}


class Taken(NamedTuple):
    """The arguments of a sampler.

    Args:
        names: those that it takes.
        needed: those without a default.
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]


def taken(sampler: Callable[..., Any]) -> Taken:
    """What a sampler takes besides `seeds`.

    Raises:
        TypeError: it takes no seeds.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> taken(sample_linear).needed
    ('d', 'k', 'true_rank', 'samples')
    """
    parameters = inspect.signature(sampler).parameters
    if "seeds" not in parameters:
        raise TypeError(
            "a sampler must take seeds=..., a list of them, and return a problem with an instance "
            f"for each; {getattr(sampler, '__name__', sampler)!s} takes {', '.join(parameters)}"
        )
    named = {n: p for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD and n != "seeds"}
    return Taken(tuple(named), tuple(n for n, p in named.items() if p.default is p.empty))


def own_hyper(factory: Callable[..., Any]) -> tuple[str, ...]:
    """The hyper-parameters of a method's factory."""
    return tuple(inspect.signature(factory).parameters)
