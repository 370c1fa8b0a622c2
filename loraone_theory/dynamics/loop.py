"""The only loop: simulate a method on a problem, for a batch of runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, Params
from loraone_theory.core.status import Outcome, RunStatus
from loraone_theory.core.threads import side_by_side, threads_for
from loraone_theory.dynamics import plan, records, steppers
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import RECORDS, View
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods import Method
from loraone_theory.methods.rules.base import State
from loraone_theory.problems.base import Problem, facts
from loraone_theory.problems.trials import trial_seeds

# Snapshots are gathered up to this size and then measured in one batched call.
CHUNK_BYTES = 1 << 22
# From this many snapshots on, threads share those instead of the work on each.
MANY = 8
# Their residuals, which many records need, may take this much.
RESIDUAL_BYTES = 1 << 25
# Finiteness is looked at once in so many steps; the exact step is found by repeating those.
CHECK_STEPS = 128


def simulate(
    problem: Problem,
    method: str | Method,
    *,
    rank: int,
    learning_rate: float | Sequence[float],
    steps: int,
    seeds: Sequence[int] | None = None,
    initial: Factors | None = None,
    init_std: float | Sequence[float] | None = None,
    damping: float | Sequence[float] = 0.0,
    record: Sequence[str] = ("loss", "risk"),
    every: int = 1,
    reduce: str = "auto",
    progress: Callable[[int], object] | None = None,
) -> Trajectory:
    """Run `steps` steps of a method and record along the way.

    On a batched problem trial i runs on instance i; on a single problem every seed is a trial.
    Sequences for init_std, learning_rate and damping add leading batch axes in that order.
    Where the rule is rotation-equivariant the linear problem is reduced exactly first; records
    and final factors are those of the original coordinates. With LoRA-init the reduced right
    space is V_{r*}(G), so `right_alignment` is then zero by construction: use reduce="never" to
    observe it.

    Args:
        problem: a linear or ReLU problem.
        method: a name in `METHODS`, or a Method made by its factory.
        rank: r, 1 <= r <= min(d, k).
        learning_rate: η > 0.
        steps: T >= 1.
        seeds: one trial per seed. By default trial i has the seed of instance i.
        initial: A₀ (..., d, r) and B₀ (..., r, k) in place of the method's initialisation.
        init_std: α of LoRA-init, in place of the method's.
        damping: λ >= 0 of preconditioned rules; 0 stands for pseudo-inverses.
        record: names in `RECORDS`.
        every: record at t = 0, every, 2·every, …, and at T.
        reduce: "auto" or "never".
        progress: called with the number of steps done, now and then.

    Returns:
        A Trajectory with records of shape (recorded steps, *batch), t = 0 first. A run that
        diverges gets a status with the step; the others are not affected.

    Raises:
        TypeError, ValueError: an argument that breaks a rule above; nothing has been computed.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=20, k=15, true_rank=2, samples=400, seeds=(0, 1))
    >>> run = simulate(problem, "lora-one", rank=2, learning_rate=0.25, steps=200)
    >>> run.axes, tuple(run["risk"].shape)
    (('seed',), (201, 2))
    >>> bool((run["risk"][-1] < 1e-25).all())
    True
    """
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    steps = validate.integer("steps", steps, least=1)
    every = validate.integer("every", every, least=1)
    drawn = trial_seeds(problem, seeds)
    record = plan.check_records(record, chosen)
    validate.choice("reduce", reduce, plan.REDUCE)
    hyper = _hyper(chosen, learning_rate, init_std, damping, initial)
    if initial is not None:
        initial = plan.check_initial(initial, problem, rank, chosen)
    batch = plan.make_batch(problem, drawn, hyper, problem.like)
    plan.check_size(problem, batch, rank, record, steps // every + 2)
    with threads_for(problem.d**2, problem.like.device), torch.no_grad():
        prepared = plan.make_plan(
            problem, chosen, rank=rank, batch=batch, seeds=drawn, initial=initial, reduce=reduce
        )
    recorded = np.unique(np.append(np.arange(0, steps + 1, every), steps))
    entries = max(t.numel() for t in prepared.start.trainable)
    work = facts(prepared.problem).work * batch.shape.numel()
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max(1, threads - 1))
    with pool, threads_for(max(entries, work), problem.like.device), torch.no_grad():
        run = _Run(prepared, record, recorded, threads, pool)
        run.advance(steps, progress)
    end = plan.lifted(prepared, run.stepper.params)
    config = {"method": chosen.name, "hyper": chosen.hyper, "rank": rank, "steps": steps}
    config |= {"every": every, "damping": damping, "learning_rate": learning_rate}
    return Trajectory(
        steps=recorded,
        records=run.values(),
        axes=batch.axes,
        coordinates=batch.coordinates,
        initial=plan.outer_factors(prepared, plan.first(prepared)),
        final=plan.outer_factors(prepared, end),
        offset=prepared.original.offset,
        scale=chosen.scale if chosen.parametrisation.is_pair else 1.0,
        status=run.statuses(),
        config=config,
    )


def _hyper(
    method: Method, learning_rate: Any, init_std: Any, damping: Any, initial: Factors | None
) -> dict[str, Any]:
    hyper: dict[str, Any] = {}
    if init_std is not None:
        method.with_init_std(1.0)  # refuses where A0 is not Gaussian
        if initial is not None:
            raise ValueError("init_std and initial exclude each other; give one of them")
        hyper["init_std"] = validate.numbers("init_std", init_std, positive=True)
    hyper["learning_rate"] = validate.numbers("learning_rate", learning_rate, positive=True)
    hyper["damping"] = validate.numbers("damping", damping)
    if not method.facts.inverts and hyper["damping"] != 0.0:
        raise ValueError(
            f"{method.name!r} inverts nothing, so it takes no damping; got damping={damping}"
        )
    return hyper


class _Run:
    """A batch of runs on its way: the stepper, and what is recorded of it."""

    def __init__(
        self,
        prepared: Plan,
        record: tuple[str, ...],
        recorded: np.ndarray,
        threads: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.plan, self.record, self.recorded = prepared, record, recorded
        self.threads, self.pool = threads, pool  # for measuring; the steps may have fewer
        self.stepper = steppers.make(prepared)
        shape = (len(recorded), *prepared.batch.shape)
        self.store = {name: prepared.problem.like.new_full(shape, math.nan) for name in record}
        wanted = plan.needs_reference(record)
        self.against = records.reference(prepared.problem) if wanted else None
        self.diverged_at = torch.zeros(prepared.batch.shape, dtype=torch.int64)
        self.measured = self.waiting = 0
        self.snapshots = self._room() if record else ()

    def _room(self) -> Params:
        """Space for the snapshots that are measured together, (count, *batch, ...) each."""
        params, like = self.stepper.params, self.plan.problem.like
        size = sum(t.numel() for t in params) * like.element_size()
        entries = self.plan.problem.d * self.plan.problem.k * self.plan.batch.shape.numel()
        residual = entries * like.element_size()
        count = max(1, min(CHUNK_BYTES // size, RESIDUAL_BYTES // residual, len(self.recorded)))
        return tuple(t.new_empty(count, *t.mT.shape).mT for t in params)

    def advance(self, steps: int, progress: Callable[[int], object] | None) -> None:
        """All steps, in chunks; stops early once every run has diverged."""
        wanted = set(self.recorded.tolist()) if self.record else set()
        stepper = self.stepper
        self._keep(0, wanted)
        done = 0
        while done < steps:
            stop = min(done + CHECK_STEPS, steps)
            before = stepper.saved()
            for t in range(done + 1, stop + 1):
                stepper.step()
                self._keep(t, wanted)
            self._find_divergence(before, done, stop)
            done = stop
            if progress is not None:
                progress(done)
            if bool((self.diverged_at > 0).all()):
                break
        self._measure()

    def _keep(self, t: int, wanted: set[int]) -> None:
        if t in wanted:
            for space, value in zip(self.snapshots, self.stepper.params, strict=True):
                space[self.waiting].copy_(value)
            self.waiting += 1
            if self.waiting == len(self.snapshots[0]):
                self._measure()

    def _measure(self) -> None:
        """Every record of the snapshots, in one batched call for each thread."""
        if not self.waiting:
            return
        entries = self.snapshots[0][: self.waiting].numel()
        device = self.plan.problem.like.device
        with threads_for(entries, device, self.threads):
            if torch.get_num_threads() > 1 and device.type == "cpu" and self.waiting >= MANY:
                side_by_side(self.pool, self._measure_rows, self.waiting, self.threads)
            else:
                self._measure_rows(slice(0, self.waiting))
        self.measured, self.waiting = self.measured + self.waiting, 0

    def _measure_rows(self, rows: slice) -> None:
        stacked = tuple(space[rows] for space in self.snapshots)
        method, frozen = self.plan.method.parametrisation, self.plan.start.frozen
        shift, sides = method.shift(stacked, frozen), method.sides(stacked, frozen)
        view = View(self.plan.problem, self.against, shift, sides, stacked)
        for name in self.record:
            target = self.store[name][self.measured + rows.start : self.measured + rows.stop]
            target.copy_(RECORDS[name](view))

    def _find_divergence(self, before: tuple[Params, State], done: int, stop: int) -> None:
        """Date the runs that stopped being finite between two checks, by repeating the steps."""
        new = ~self._finite(self.stepper.params) & (self.diverged_at == 0)
        if not bool(new.any()):
            return
        present = self.stepper.saved()
        self.stepper.load(*before)
        for t in range(done + 1, stop + 1):
            self.stepper.step()
            now = new & ~self._finite(self.stepper.params)
            self.diverged_at[now] = t
            new = new & ~now
            if not bool(new.any()):
                break
        self.stepper.load(*present)

    def _finite(self, params: Params) -> Tensor:
        finite = [torch.isfinite(t).flatten(-2).all(-1) for t in params]
        return torch.stack(torch.broadcast_tensors(*finite)).all(0).cpu()

    def values(self) -> dict[str, Tensor]:
        """The records, with NaN from the step at which a run diverged."""
        steps = torch.from_numpy(self.recorded).reshape(-1, *[1] * self.diverged_at.ndim)
        gone = (self.diverged_at > 0) & (steps >= self.diverged_at)
        return {
            name: value.masked_fill(gone.to(value.device), math.nan)
            for name, value in self.store.items()
        }

    def statuses(self) -> np.ndarray:
        """One RunStatus per run."""
        dropped = self.plan.rule.dropped
        zero = torch.zeros_like(self.diverged_at)
        counts = [zero, zero] if dropped is None else [c.cpu() for c in dropped(self.stepper.state)]
        answer = np.empty(tuple(self.diverged_at.shape), dtype=object)
        for index in np.ndindex(answer.shape):
            count, last = (int(c.expand_as(zero)[index]) for c in counts)
            if step := int(self.diverged_at[index]):
                answer[index] = RunStatus(Outcome.DIVERGED, step)
            elif count:
                answer[index] = RunStatus(Outcome.TRUNCATED, last, count)
            else:
                answer[index] = RunStatus(Outcome.COMPLETED)
        return answer
