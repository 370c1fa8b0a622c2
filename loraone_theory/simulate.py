"""The only loop: simulate a method on a problem, for a batch of runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods, metrics, plan, validate
from loraone_theory.capture import captured
from loraone_theory.factors import Factors, Params
from loraone_theory.methods import Method
from loraone_theory.metrics import RECORDS, View
from loraone_theory.plan import Plan
from loraone_theory.problems.base import Problem
from loraone_theory.rules.base import State
from loraone_theory.status import Outcome, RunStatus
from loraone_theory.threads import threads_for
from loraone_theory.trajectory import Trajectory

# Snapshots are gathered up to this size and then measured in one batched call.
CHUNK_BYTES = 1 << 22
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
    seeds: int | Sequence[int] = (0,),
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
        seeds: one trial per seed.
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

    >>> from loraone_theory.problems.sampling import sample_linear
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
    seeds = validate.seeds(seeds)
    record = plan.check_records(record, chosen)
    validate.choice("reduce", reduce, plan.REDUCE)
    hyper = _hyper(chosen, learning_rate, init_std, damping, initial)
    if initial is not None:
        initial = plan.check_initial(initial, problem, rank)
    batch = plan.make_batch(problem, seeds, hyper, problem.like)
    with threads_for(problem.d**2, problem.like.device), torch.no_grad():
        prepared = plan.make_plan(
            problem, chosen, rank=rank, batch=batch, seeds=seeds, initial=initial, reduce=reduce
        )
    recorded = np.unique(np.append(np.arange(0, steps + 1, every), steps))
    entries = max(t.numel() for t in prepared.start.trainable)
    work = getattr(prepared.problem, "work", 0) * batch.shape.numel()
    with threads_for(max(entries, work), problem.like.device), torch.no_grad():
        run = _Run(prepared, record, recorded)
        run.advance(steps, progress)
    end = plan.lifted(prepared, run.params)
    config = {"method": chosen.name, "hyper": _plain(chosen.hyper), "rank": rank, "steps": steps}
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
        if method.with_init_std is None:
            raise ValueError(
                f"init_std is the size of a Gaussian A0, and {method.name!r} has none; leave it out"
            )
        if initial is not None:
            raise ValueError("init_std and initial exclude each other; give one of them")
        hyper["init_std"] = validate.numbers("init_std", init_std, positive=True)
    hyper["learning_rate"] = validate.numbers("learning_rate", learning_rate, positive=True)
    hyper["damping"] = validate.numbers("damping", damping)
    if not method.takes_damping and hyper["damping"] != 0.0:
        raise ValueError(
            f"{method.name!r} inverts nothing, so it takes no damping; got damping={damping}"
        )
    return hyper


def _plain(hyper: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value._asdict() if hasattr(value, "_asdict") else value
        for name, value in hyper.items()
        if not isinstance(value, Tensor)
    }


class _Run:
    """The state of a batch of runs between chunks of steps."""

    def __init__(self, prepared: Plan, record: tuple[str, ...], recorded: np.ndarray) -> None:
        self.plan, self.record, self.recorded = prepared, record, recorded
        self.params: Params = prepared.start.trainable
        self.state: State = prepared.rule.init(self.params)
        shape = (len(recorded), *prepared.batch.shape)
        self.store = {name: prepared.problem.like.new_full(shape, math.nan) for name in record}
        wanted = plan.needs_reference(record)
        self.against = metrics.reference(prepared.problem) if wanted else None
        self.diverged_at = torch.zeros(prepared.batch.shape, dtype=torch.int64)
        self.snapshots: list[Params] = []
        self.measured = 0
        like = prepared.problem.like
        size = sum(t.numel() for t in self.params) * like.element_size()
        entries = prepared.problem.d * prepared.problem.k * prepared.batch.shape.numel()
        residual = entries * like.element_size()
        self.capacity = max(1, min(CHUNK_BYTES // size, RESIDUAL_BYTES // residual))

    def step(self, params: Params, state: State) -> tuple[Params, State]:
        """One step of the method from time-t values."""
        method, frozen = self.plan.method.parametrisation, self.plan.start.frozen
        gradients = self.plan.problem.gradients(method.shift(params, frozen))
        return self.plan.rule.update(params, method.pullback(params, frozen, gradients), state)

    def advance(self, steps: int, progress: Callable[[int], object] | None) -> None:
        """All steps, in chunks; stops early once every run has diverged."""
        wanted = set(self.recorded.tolist()) if self.record else set()
        self._keep(0, wanted)
        step = captured(self.step, self.params, self.state)
        done = 0
        while done < steps:
            stop = min(done + CHECK_STEPS, steps)
            params, state = self.params, self.state
            for t in range(done + 1, stop + 1):
                self.params, self.state = step(self.params, self.state)
                self._keep(t, wanted)
            self._find_divergence(params, state, done, stop)
            done = stop
            if progress is not None:
                progress(done)
            if bool((self.diverged_at > 0).all()):
                break
        self._measure()

    def _keep(self, t: int, wanted: set[int]) -> None:
        if t in wanted:
            self.snapshots.append(self.params)
            if len(self.snapshots) >= self.capacity:
                self._measure()

    def _measure(self) -> None:
        """Every record of the snapshots in one batched call."""
        if not self.snapshots:
            return
        count = len(self.snapshots)
        # Stacked through the transposes, which keeps the long axis contiguous.
        stacked = tuple(
            torch.stack([part.mT for part in parts]).mT
            for parts in zip(*self.snapshots, strict=True)
        )
        method, frozen = self.plan.method.parametrisation, self.plan.start.frozen
        shift, sides = method.shift(stacked, frozen), method.sides(stacked, frozen)
        view = View(self.plan.problem, self.against, shift, sides, stacked)
        for name in self.record:
            self.store[name][self.measured : self.measured + count] = RECORDS[name](view)
        self.measured += count
        self.snapshots.clear()

    def _find_divergence(self, params: Params, state: State, done: int, stop: int) -> None:
        """Date the runs that stopped being finite between two checks, by repeating the steps."""
        new = ~self._finite(self.params) & (self.diverged_at == 0)
        for t in range(done + 1, stop + 1):
            if not bool(new.any()):
                return
            params, state = self.step(params, state)
            now = new & ~self._finite(params)
            self.diverged_at[now] = t
            new = new & ~now

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
        counts = [zero, zero] if dropped is None else [c.cpu() for c in dropped(self.state)]
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
