"""Carry a plan out: threads around, a run inside."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from loraone_theory.core.names import MethodName
from loraone_theory.core.threads import threads_for
from loraone_theory.dynamics import plan as plans
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.run import Point, Run, start_of
from loraone_theory.dynamics.settings import Settings
from loraone_theory.dynamics.until import Earlier
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem, fact


def prepare(problem: Problem, method: MethodName | str | Method, settings: Settings) -> Plan:
    """The plan of a simulation."""
    with threads_for(problem.d**2, problem.like.device), torch.no_grad():
        return plans.make(problem, method, settings)


def carry_out(
    plan: Plan,
    begin: Point | None,
    last: int,
    progress: Callable[[int], object] | None = None,
    earlier: Earlier | None = None,
) -> Run:
    """All steps up to `last`, from the start of the plan or from another point of it."""
    entries = max(t.numel() for t in plan.start.trainable)
    work = fact(plan.problem, "work") * plan.batch.shape.numel()
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max(1, threads - 1))
    device = plan.problem.like.device
    with pool, threads_for(max(entries, work), device), torch.no_grad():
        begin = start_of(plan) if begin is None else begin
        run = Run(plan, begin, last, threads, pool, earlier)
        run.advance(progress)
    return run
