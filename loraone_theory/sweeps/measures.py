"""What is kept of a run: a record, and what its course is reduced to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.base import Problem, needed
from loraone_theory.sweeps import floors
from loraone_theory.sweeps.own import written

CURVE = "curve"
# What a level may be a multiple of: the record's value at t = 0, or where nothing is learned.
AGAINST = ("start", "zero")


class Kept(Protocol):
    """What a cell is named by, and a result labelled with: a `Measure`, or what stands for one."""

    @property
    def unit(self) -> str:
        """Of its values."""

    @property
    def doc(self) -> str:
        """A line on what it is."""

    @property
    def trailing(self) -> str | None:
        """The name of the axis of a vector."""

    @property
    def is_curve(self) -> bool:
        """Whether it has a value at every recorded step."""

    def described(self) -> dict[str, Any]:
        """As JSON."""


@dataclass(frozen=True)
class Measure:
    """One number of a run, or one vector.

    Args:
        record: what is recorded.
        reduce: a name in `REDUCTIONS`, or a function (values (T, *runs, ...), steps (T,)) ->
            (*runs, ...).
        level: of "steps_to" and "success".
        against: what the level is a multiple of, "start" or "zero"; None for a level as it is.
        factor: of "success": the level is on top of so many times the predicted floor.
    """

    record: str | Record
    reduce: str | Callable[..., Any] = "final"
    level: float | None = None
    against: str | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.record, Record):
            validate.choice("record of a measure", self.record, RECORDS)
        if not callable(self.reduce):
            validate.choice("reduce of a measure", self.reduce, REDUCTIONS)
        if self.level is not None:
            validate.number("level of a measure", self.level)
        if self.factor is not None:
            validate.number("factor of a measure", self.factor, positive=True)
        if self.against is not None:
            validate.choice("against of a measure", self.against, AGAINST)
            if self.level is None:
                raise ValueError("against is what a level is a multiple of; give the level too")
        if self.against == "zero" and self.name not in AT_ZERO:
            raise ValueError(
                f"against='zero' is known of {', '.join(AT_ZERO)}; got record {self.name!r}; use "
                "against='start'"
            )
        levelled = self.reduce in LEVELLED
        if levelled and self.level is None and self.factor is None:
            raise ValueError(f"{self.reduce!r} asks whether a level is reached; give level=...")
        if not levelled and (self.level is not None or self.factor is not None):
            raise ValueError(
                f"level and factor are those of {', '.join(LEVELLED)}; got them with "
                f"{self.reduce!r}; leave them out"
            )
        if self.is_curve and self.row.axis is not None:
            raise ValueError(f"a curve is one of numbers, and {self.name!r} is a vector; reduce it")
        if self.factor is not None and self.name not in floors.FLOORS:
            raise ValueError(
                f"a floor is predicted of {', '.join(floors.FLOORS)}; got factor with record "
                f"{self.name!r}; give a level alone"
            )

    @property
    def name(self) -> str:
        """Of the record."""
        return self.record if isinstance(self.record, str) else self.record.name

    @property
    def row(self) -> Record:
        """The record itself."""
        return RECORDS[self.record] if isinstance(self.record, str) else self.record

    @property
    def unit(self) -> str:
        """Of its values: those of the record, or steps, or 1 for yes and 0 for no."""
        if self.reduce in UNITS:
            return UNITS[str(self.reduce)]
        return self.row.unit

    @property
    def doc(self) -> str:
        """A line on what it is."""
        how = self.reduce if isinstance(self.reduce, str) else written("reduce", self.reduce)["own"]
        return f"{how} of {self.name}: {self.row.doc}"

    @property
    def trailing(self) -> str | None:
        """The name of the axis of a vector, "" where only its values know; None for numbers."""
        return "" if callable(self.reduce) else self.row.axis

    @property
    def is_curve(self) -> bool:
        """Whether it has a value at every recorded step."""
        return self.reduce == CURVE

    def described(self) -> dict[str, Any]:
        """As JSON."""
        found = {
            "record": written("record", self.record),
            "reduce": written("reduce", self.reduce),
            "level": self.level,
            "against": self.against,
            "factor": self.factor,
        }
        return {name: value for name, value in found.items() if value is not None}

    def of(self, run: Trajectory, problem: Problem) -> np.ndarray:
        """Its value for every run of a batch, (*runs, ...); NaN where a run has none."""
        values = run[self.name].cpu().numpy()
        if callable(self.reduce):
            found = np.asarray(self.reduce(values, run.steps))
            if found.shape[: run.status.ndim] != run.status.shape:
                raise ValueError(
                    f"a reduction must return (*runs, ...), here {run.status.shape} at the front; "
                    f"got {found.shape}"
                )
            return found
        bound = self._bound(run, problem, values) if self.reduce in LEVELLED else None
        return REDUCTIONS[self.reduce](values, run.steps, bound)

    def _bound(self, run: Trajectory, problem: Problem, values: np.ndarray) -> Any:
        level: Any = 0.0 if self.level is None else self.level
        if self.against == "start":
            level = level * values[0]
        elif self.against == "zero":
            level = level * AT_ZERO[self.name](problem)
        if self.factor is None:
            return level
        return level + self.factor * floors.FLOORS[self.name](problem, run.resume.plan)


def _nothing(problem: Problem) -> Factors:
    like = problem.like
    return Factors(like.new_zeros(problem.d, 1), like.new_zeros(1, problem.k))


def _loss(problem: Problem) -> np.ndarray:
    return problem.loss(_nothing(problem)).cpu().numpy()


def _risk(problem: Problem) -> np.ndarray:
    return needed(problem, "risk", "the risk at zero")(_nothing(problem)).cpu().numpy()


def _error(problem: Problem) -> np.ndarray:
    residual = needed(problem, "residual", "the error at zero")(_nothing(problem))
    return torch.linalg.matrix_norm(residual).cpu().numpy()


# A record where nothing is learned, AB = 0.
AT_ZERO: dict[str, Callable[[Problem], np.ndarray]] = {
    "loss": _loss,
    "risk": _risk,
    "error": _error,
}


def _final(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    return values[-1]


def _minimum(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    return np.fmin.reduce(values, axis=0)


def _maximum(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    return np.fmax.reduce(values, axis=0)


def _step_of_minimum(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    known = np.isfinite(values)
    at = np.where(known, values, math.inf).argmin(0)
    return np.where(known.any(0), steps[at], math.nan)


def _steps_to(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    there = values <= bound
    return np.where(there.any(0), steps[there.argmax(0)], math.nan)


def _success(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    return (values[-1] <= bound).astype(np.float64)  # NaN, of a run that diverged, is no success


def _curve(values: np.ndarray, steps: np.ndarray, bound: Any) -> np.ndarray:
    return np.moveaxis(values, 0, -1)


# (values (T, *runs, ...), steps (T,), the level (*runs)) -> (*runs, ...).
REDUCTIONS: dict[str, Callable[[np.ndarray, np.ndarray, Any], np.ndarray]] = {
    "final": _final,
    "minimum": _minimum,
    "maximum": _maximum,
    "step_of_minimum": _step_of_minimum,
    "steps_to": _steps_to,
    "success": _success,
    CURVE: _curve,
}
LEVELLED = ("steps_to", "success")
UNITS = {"steps_to": "step", "step_of_minimum": "step", "success": "1"}


def measure(name: str, given: Any) -> Measure:
    """A measure from how it is written: "final", a mapping of its arguments, or a Measure.

    >>> measure("risk", "minimum")
    Measure(record='risk', reduce='minimum', level=None, against=None, factor=None)

    Raises:
        TypeError, ValueError: none of these, or arguments that break a rule.
    """
    if isinstance(given, Measure):
        return given
    if isinstance(given, str) or callable(given):
        return Measure(record=name, reduce=given)
    fields = validate.instance(f"measure {name!r}", given, Mapping, "write a reduction, or a table")
    for key in fields:
        validate.choice(f"key of measure {name!r}", key, Measure.__dataclass_fields__)
    return Measure(**{"record": name, **fields})
