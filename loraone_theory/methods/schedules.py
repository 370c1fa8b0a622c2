"""Learning rates that depend on the step: t -> η_t for the step from t to t + 1, t = 0, 1, ...

`simulate(learning_rate=...)` takes any of these, and any function of t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from loraone_theory.core import validate

Schedule = Callable[[int], float]


class _Shown:
    """A short repr: the call that makes the schedule, without what is at its default."""

    def __repr__(self) -> str:
        shown = []
        for i, field in enumerate(fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                text = _short(value) if isinstance(value, float) else repr(value)
                shown.append(text if i == 0 else f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: float) -> str:
    """The shortest text that is read back as the same number."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


@dataclass(frozen=True, repr=False)
class constant(_Shown):
    """η_t = η.

    >>> constant(0.5), constant(0.5)(100)
    (constant(0.5), 0.5)
    """

    rate: float

    def __post_init__(self) -> None:
        _settle(self, "rate", positive=True)

    def __call__(self, t: int) -> float:
        """η_t."""
        return self.rate


@dataclass(frozen=True, repr=False)
class _Ramp(_Shown):
    """Up from 0 in `warmup` steps, then from `peak` to `final` at step `steps`, then level.

    η_t = peak·(t + 1)/(warmup + 1) for t < warmup, so that no step has rate 0;
    η_t = final + (peak − final)·f(x) with x = min(1, (t − warmup)/(steps − warmup)) from then on.
    """

    peak: float
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        _settle(self, "peak", positive=True)
        _settle(self, "final")
        validate.integer(f"steps of schedule {name}", self.steps, least=1)
        validate.integer(f"warmup of schedule {name}", self.warmup, least=0)
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup of schedule {name} must be < steps; got warmup={self.warmup} with "
                f"steps={self.steps}; lower warmup or raise steps"
            )

    def __call__(self, t: int) -> float:
        """η_t."""
        if t < self.warmup:
            return self.peak * (t + 1) / (self.warmup + 1)
        x = min(1.0, (t - self.warmup) / (self.steps - self.warmup))
        return self.final + (self.peak - self.final) * self._left(x)

    def _left(self, x: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class cosine(_Ramp):
    """Half a cosine from `peak` at t = warmup to `final` at t = steps, after a linear warm-up.

    η_t = final + (peak − final)·(1 + cos πx)/2 with x = (t − warmup)/(steps − warmup).

    Args:
        peak: the largest rate.
        steps: when `final` is reached.
        warmup: how many steps the rate climbs.
        final: the rate from `steps` on.

    >>> rate = cosine(0.5, steps=1000, warmup=100)
    >>> rate, rate(100), rate(550), rate(1000)
    (cosine(0.5, steps=1000, warmup=100), 0.5, 0.25, 0.0)
    """

    def _left(self, x: float) -> float:
        # Exact at both ends and in the middle, where cos is not.
        return math.sin(math.pi * (1 - 2 * x) / 2) / 2 + 0.5


@dataclass(frozen=True, repr=False)
class linear(_Ramp):
    """A line from `peak` at t = warmup to `final` at t = steps, after a linear warm-up.

    Args:
        peak: the largest rate.
        steps: when `final` is reached.
        warmup: how many steps the rate climbs.
        final: the rate from `steps` on.

    >>> [linear(1.0, steps=4)(t) for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def _left(self, x: float) -> float:
        return 1 - x


@dataclass(frozen=True, repr=False)
class step(_Shown):
    """η_t = η·factor^⌊t/every⌋.

    >>> [step(0.8, every=2, factor=0.5)(t) for t in range(5)]
    [0.8, 0.8, 0.4, 0.4, 0.2]
    """

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _settle(self, "rate", positive=True)
        _settle(self, "factor", positive=True)
        validate.integer("every of schedule step", self.every, least=1)

    def __call__(self, t: int) -> float:
        """η_t."""
        return self.rate * self.factor ** (t // self.every)


@dataclass(frozen=True, repr=False)
class inverse_time(_Shown):
    """η_t = η/(1 + decay·t).

    >>> inverse_time(1.0, decay=0.5)(2)
    0.5
    """

    rate: float
    decay: float

    def __post_init__(self) -> None:
        _settle(self, "rate", positive=True)
        _settle(self, "decay")

    def __call__(self, t: int) -> float:
        """η_t."""
        return self.rate / (1 + self.decay * t)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "step": step,
    "inverse_time": inverse_time,
}


def _settle(schedule: object, name: str, *, positive: bool = False) -> None:
    """Check one of its numbers, and hold it as a float."""
    label = f"{name} of schedule {type(schedule).__name__}"
    value = validate.number(label, getattr(schedule, name), positive=positive)
    object.__setattr__(schedule, name, value)
