"""From the arguments of `simulate` to tensors: checked settings, start, reduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import tall, validate
from loraone_theory.core.factors import Factors, Params, Scalar, concatenate
from loraone_theory.core.names import MethodName
from loraone_theory.dynamics import batch as batches
from loraone_theory.dynamics import engine, invariance, size
from loraone_theory.dynamics.batch import Batch
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.settings import Settings
from loraone_theory.dynamics.view import Reference, View, reference
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.rules import Rule
from loraone_theory.problems.base import Problem, fact
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import Reduction, reduce_around
from loraone_theory.problems.sensing.problem import SensingProblem


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything the loop needs.

    Args:
        given: the problem as it was handed in.
        whole: the same with the method's offset.
        problem: the same in the coordinates that the loop runs in.
        chosen: the method as it was handed in, at its rank.
        method: the same with the start that it is given.
        settings: the arguments, checked.
        batch: of runs.
        start: trainable tensors expanded to the batch, in the loop's coordinates.
        original: as the initialisation gave it.
        reduction: the way back to the original coordinates, None where nothing was reduced.
    """

    given: Problem
    whole: Problem
    problem: Problem
    chosen: Method
    method: Method
    settings: Settings
    batch: Batch
    start: Start
    original: Start
    reduction: Reduction | None

    @cached_property
    def rule(self) -> Rule:
        """The rule of the first step."""
        return self.rule_with(self.batch.rates.at(self.batch.rates.first))

    def rule_at(self, t: int) -> Rule:
        """The rule of the step from t to t + 1."""
        return self.rule_with(self.batch.rates.at(t)) if self.batch.rates.scheduled else self.rule

    def rule_with(self, rate: Scalar) -> Rule:
        """The rule at a learning rate."""
        return self.method.rule(rate, self.batch.hyper["damping"])

    def problem_at(self, t: int) -> Problem:
        """The problem whose gradient the step from t to t + 1 takes."""
        batches = self.settings.batches
        return self.problem if batches is None else batches.problem(self.problem, t)

    @property
    def first(self) -> Params:
        """The trainable tensors at t = 0, as the initialisation gave them, one for each run."""
        return tuple(_expanded(tensor, self.batch) for tensor in self.original.trainable)

    def lifted(self, trainable: Params) -> Params:
        """Trainable tensors of the loop in the original coordinates."""
        if self.reduction is None:
            return trainable
        axes = self.method.parametrisation.trainable_axes
        return tuple(
            self.reduction.lift_tensor(tensor, where)
            for tensor, where in zip(trainable, axes, strict=True)
        )

    def outer(self, trainable: Params) -> Factors:
        """The pair (A, B), or the factors of the learned shift, from original coordinates."""
        if self.method.is_pair:
            return Factors(*trainable)
        return self.method.parametrisation.shift(trainable, self.original.frozen)

    def view(self, trainable: Params, *, lift: bool) -> View:
        """What records see of tensors of the loop, in its coordinates or in the original ones."""
        problem, frozen, offset = self.problem, self.start.frozen, self._low_offset
        if lift:
            trainable, problem = self.lifted(trainable), self.whole
            frozen, offset = self.original.frozen, self.original.offset
        against = self._reference_whole if lift else self._reference_low
        form = self.method.parametrisation
        return View(problem, form, trainable, frozen, offset, self._count, against)

    @cached_property
    def _low_offset(self) -> Factors | None:
        offset = self.original.offset
        lowered = self.reduction is not None and offset is not None
        return self.reduction.lower(offset) if lowered else offset  # type: ignore[union-attr, arg-type]

    @cached_property
    def _count(self) -> int:
        shift = self.method.parametrisation.shift(self.original.trainable, self.original.frozen)
        if self.original.offset is not None:
            shift = concatenate(shift, self.original.offset)
        return min(shift.rank, self.whole.d, self.whole.k)

    def _reference_low(self) -> Reference:
        return self._low

    def _reference_whole(self) -> Reference:
        return self._low if self.reduction is None else self._whole

    @cached_property
    def _low(self) -> Reference:
        return reference(self.problem)

    @cached_property
    def _whole(self) -> Reference:
        return reference(self.whole)

    def split_records(self) -> tuple[Mapping[str, Record], dict[str, str]]:
        """The records that can be measured, and why the others cannot."""
        wanted = self.settings.record
        reasons = {name: row.missing(self.given) for name, row in wanted.items()}
        told = {name: reason for name, reason in reasons.items() if reason is not None}
        return {name: row for name, row in wanted.items() if name not in told}, told

    def recorded(self, first: int, last: int) -> np.ndarray:
        """The steps within [first, last] at which records are taken."""
        every = self.settings.every
        turns = np.arange(-(-first // every) * every, last + 1, every)
        return turns if last % every == 0 else np.append(turns, last)


def make(problem: Problem, given: MethodName | str | Method, settings: Settings) -> Plan:
    """Initialise, reduce where that is exact, and expand the start to the batch."""
    chosen = methods.get(given, settings.rank)
    batch = batches.make(problem, settings.seeds, settings.hyper)
    size.check(problem, batch, settings)
    batch.rates.prepare(0, settings.steps)
    turns = chosen.facts.equivariant and chosen.parametrisation.turns
    if fact(problem, "matrix_free") and not turns:
        raise ValueError(
            f"{chosen.name!r} is not rotation-equivariant, and this problem is known up to a "
            "rotation only; draw it with sample_linear instead of sample_linear_matrix_free"
        )
    reduced = settings.reduce == "auto" and turns
    whole_rows = settings.batches is None
    engine.check(settings.engine, problem, chosen, reduced=reduced, all_rows=whole_rows)
    method = chosen
    if settings.initial is not None:
        method = chosen.started_at(settings.initial)
    elif "init_std" in batch.hyper:
        method = chosen.with_init_std(batch.hyper["init_std"])
    original = method.init(problem, settings.rank, settings.seeds)
    for tensor in (*original.trainable, *original.frozen, *(original.offset or ())):
        validate.expands_to("initial factors", tensor.shape[:-2], batch.shape)
    whole = problem if original.offset is None else problem.with_offset(original.offset)
    reduction, start = None, original
    if reduced and type(whole) is LinearProblem:
        if chosen.train.own is not None:  # a rule of the user's own
            invariance.check_rule(chosen, settings.rank)
        rows = settings.batches is not None
        reduction, start = _reduced(whole, method, original, minibatches=rows)
    low = whole if reduction is None else reduction.problem
    if settings.reduce == "auto" and type(low) is SensingProblem and settings.batches is None:
        low = low.lighter()  # whatever the number of steps: a run that goes on keeps its form
    trainable = tuple(_expanded(tall.layout(tensor), batch) for tensor in start.trainable)
    return Plan(
        given=problem,
        whole=whole,
        problem=low,
        chosen=chosen,
        method=method,
        settings=settings,
        batch=batch,
        start=Start(trainable, start.frozen),
        original=original,
        reduction=reduction,
    )


def _reduced(
    problem: LinearProblem, method: Method, start: Start, *, minibatches: bool
) -> tuple[Reduction, Start]:
    axes = method.parametrisation
    placed = [
        *zip(start.trainable, axes.trainable_axes, strict=True),
        *zip(start.frozen, axes.frozen_axes, strict=True),
    ]
    reduction = reduce_around(problem, placed, minibatches=minibatches)
    lowered = [reduction.lower_tensor(tensor, where) for tensor, where in placed]
    count = len(start.trainable)
    return reduction, Start(tuple(lowered[:count]), tuple(lowered[count:]))


def _expanded(tensor: Tensor, batch: Batch) -> Tensor:
    return tensor.expand(*batch.shape, *tensor.shape[-2:])
