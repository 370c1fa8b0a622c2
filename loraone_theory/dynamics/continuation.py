"""Going on from where runs stopped, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics import provenance
from loraone_theory.dynamics.execution import carry_out
from loraone_theory.dynamics.leaves import Leaf, filled
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.run import Point, Run
from loraone_theory.dynamics.until import Earlier
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem, fact

if TYPE_CHECKING:
    from loraone_theory.dynamics.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds of a plan and of where its runs stood."""

    config: dict[str, Any]
    initial: Factors | None  # as it was given
    step: int
    params: tuple[Tensor, ...]
    leaves: tuple[Leaf, ...]
    diverged_at: Tensor
    losses: Tensor


@dataclass(frozen=True, eq=False)
class Resume:
    """What `extend` goes on from: a plan and a point of it, or what a file holds of them."""

    plan: Plan | None = None
    point: Point | None = None
    stored: Stored | None = None
    config: dict[str, Any] | None = None
    threads: int | None = None  # that the plan was carried out with


def go_on(
    first: Trajectory,
    more: int,
    problem: Problem | None,
    method: Method | None,
    records: tuple[Record, ...],
    learning_rate: Any,
    progress: Callable[[int], object] | None,
) -> Run:
    """`more` steps from where it stands on."""
    if progress is not None:
        validate.function("progress", progress)
    for row in validate.sequence("records", records, "records"):
        validate.instance("records", row, Record)
    resume = first.resume
    plan, point = resume.plan, resume.point
    if plan is not None:
        provenance.agree(plan, problem, method, learning_rate)
        if provenance.has_own(plan):
            provenance.unchanged(first.config, plan)
    if plan is None or point is None:
        if resume.stored is None:
            raise ValueError(
                "this trajectory holds no state to go on from: its file was written by a version "
                "that did not keep it; simulate again, or start from initial=run.final"
            )
        plan, point = _restored(resume.stored, problem, method, records, learning_rate)
    last = point.step + more
    until = None if _arrived(first) else plan.settings.until
    settings = replace(plan.settings, steps=last, until=until)
    # Rates of its own: what goes on from the same run meanwhile has others.
    batch = replace(plan.batch, rates=plan.batch.rates.over(point.step, last))
    earlier = None
    if until is not None:
        count = _lasting(first, settings.every)
        earlier = Earlier(first.steps[:count], first[until.record][:count])
    return carry_out(replace(plan, settings=settings, batch=batch), point, last, progress, earlier)


def _arrived(run: Trajectory) -> bool:
    """Whether every run that has not diverged was at its level."""
    return run.reached is not None and bool(((run.reached.numpy() >= 0) | run.diverged).all())


def _restored(
    stored: Stored,
    problem: Problem | None,
    method: Method | None,
    records: tuple[Record, ...],
    learning_rate: Any,
) -> tuple[Plan, Point]:
    plan = provenance.plan_of(
        stored.config,
        problem=problem,
        method=method,
        initial=stored.initial,
        records=records,
        learning_rate=learning_rate,
    )
    if fact(plan.given, "reveals"):
        raise ValueError(
            f"a {type(plan.given).__name__} is drawn as its runs go, and what was drawn is not in "
            "the file; extend the run before saving it, or simulate again with more steps"
        )
    like = plan.problem.like
    params = tuple(_like(value, like) for value in stored.params)
    leaves = iter([_like(x, like) if isinstance(x, Tensor) else x for x in stored.leaves])
    state = filled(plan.rule.init(plan.start.trainable), leaves)
    return plan, Point(stored.step, params, state, stored.diverged_at, stored.losses)


def _like(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.device)


def _lasting(run: Trajectory, every: int) -> int:
    """How many recorded steps are those of a longer run as well.

    The last step is always recorded; of a longer run it is not, unless it is its turn.
    """
    return len(run.steps) - (int(run.steps[-1]) % every != 0)


def joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """One trajectory of a run and what came after it."""
    plan = second.resume.plan
    assert plan is not None
    count = _lasting(first, plan.settings.every)
    records = {
        name: torch.cat([value[:count].to(second.records[name].device), second.records[name]])
        for name, value in first.records.items()
    }
    return replace(
        second,
        steps=np.concatenate([first.steps[:count], second.steps]),
        records=records,
        factors=_both(first.factors, second.factors),
        factor_steps=(*first.factor_steps, *second.factor_steps),
        reached=first.reached if second.reached is None else second.reached,
    )


def _both(first: Factors | None, second: Factors | None) -> Factors | None:
    if first is None or second is None:
        return first or second
    return Factors(torch.cat([first.A, second.A]), torch.cat([first.B, second.B]))
