"""The learning rates of a batch of runs: numbers, or schedules that are called at every step."""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Scalar
from loraone_theory.core.fingerprint import fingerprint
from loraone_theory.methods import schedules
from loraone_theory.methods.parts import takes

Rate = float | Callable[[int], float]


def checked(given: Any) -> Rate | list[Rate]:
    """A learning rate > 0 or a schedule, or a sequence of them as a list.

    Raises:
        TypeError, ValueError: neither, or an empty sequence.
    """
    if callable(given):
        return _schedule(given)
    if isinstance(given, (list, tuple)) and any(callable(value) for value in given):
        return [_one(value) for value in given]
    return validate.numbers("learning_rate", given, positive=True)


def _one(value: Any) -> Rate:
    if callable(value):
        return _schedule(value)
    return validate.number("learning_rate", value, positive=True)


def _schedule(given: Callable[[int], float]) -> Callable[[int], float]:
    takes("a schedule", given, "t", 0)
    return given


def described(rate: Rate | list[Rate]) -> Any:
    """The rate for records: a number, what a schedule is made of, or a list of them."""
    if isinstance(rate, list):
        return [described(value) for value in rate]
    if not callable(rate):
        return rate
    if type(rate) in OURS:
        return {"schedule": type(rate).__name__, **dataclasses.asdict(rate)}  # type: ignore[call-overload]
    return text(rate)


def rebuilt(recorded: Any) -> Any:
    """The rate again from what `described` made of it.

    Raises:
        ValueError: it was a function of the user's own.
    """
    if isinstance(recorded, list):
        return [rebuilt(value) for value in recorded]
    if isinstance(recorded, Mapping):
        made = {kind.__name__: kind for kind in OURS}[recorded["schedule"]]
        return made(**{name: value for name, value in recorded.items() if name != "schedule"})
    if isinstance(recorded, str):
        raise ValueError(
            f"the learning rate was a function of the user's own, {recorded}; hand it in again: "
            "learning_rate=..."
        )
    return recorded


def text(rate: Rate) -> float | str:
    """A schedule by its repr, or by name and fingerprint where that would hold an address."""
    if not callable(rate):
        return rate
    if type(rate) in OURS:
        return repr(rate)
    name = rate.__name__ if isinstance(rate, FUNCTIONS) else type(rate).__name__
    return f"{name}#{fingerprint(rate)}"


FUNCTIONS = (types.FunctionType,)
# The schedules of the library, which a record can hold.
OURS: tuple[type, ...] = tuple(
    kind
    for kind in vars(schedules).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
)


class Rates:
    """η of every run at every step.

    Args:
        rate: one rate, or a list of them, which is then the batch axis `axis` of `ndim`.
        axis: which batch axis.
        ndim: number of batch axes.
        like: carries dtype and device.
    """

    def __init__(self, rate: Rate | list[Rate], axis: int, ndim: int, like: Tensor) -> None:
        self.values: Sequence[Rate] = rate if isinstance(rate, list) else [rate]
        self.swept = isinstance(rate, list)
        self.scheduled = any(callable(value) for value in self.values)
        self._shape = (-1, *[1] * (ndim - axis - 1), 1, 1)
        self._like = like
        self.first = 0
        self._table = np.empty((0, len(self.values)))
        self._constant = None if self.scheduled else self._tensor(np.array(self.values, float))

    def prepare(self, first: int, last: int) -> None:
        """Ask the schedules for steps first, …, last − 1, so that bad ones are refused before any.

        Raises:
            TypeError, ValueError: a value that is not a finite number >= 0; its step is named.
        """
        if not self.scheduled:
            return
        self.first = first
        table = np.empty((last - first, len(self.values)))
        for column, rate in enumerate(self.values):
            for t in range(first, last):
                value = rate(t) if callable(rate) else rate
                table[t - first, column] = validate.number(f"learning_rate at step {t}", value)
        self._table = table

    def over(self, first: int, last: int) -> Rates:
        """The same rates prepared for other steps; these stay as they are.

        Raises:
            TypeError, ValueError: as `prepare`.
        """
        others = copy.copy(self)
        others.prepare(first, last)
        return others

    def at(self, t: int) -> Scalar:
        """η of the step from t to t + 1: a number, or a tensor (values, 1, ..., 1).

        Raises:
            IndexError: a schedule was not asked for that step.
        """
        if self._constant is not None:
            return self._constant
        if not 0 <= t - self.first < len(self._table):
            last = self.first + len(self._table)
            raise IndexError(
                f"learning rates were asked for at steps {self.first} <= t < {last}; got t={t}; "
                "prepare the steps that are wanted"
            )
        return self._tensor(self._table[t - self.first])

    def _tensor(self, values: np.ndarray) -> Scalar:
        if not self.swept:
            return float(values[0])
        return torch.from_numpy(values).to(self._like).reshape(self._shape)
