"""A batch of runs on its way: steps, divergence, records, early stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.arrays import all_finite
from loraone_theory.core.factors import Factors, Params
from loraone_theory.dynamics import endings, steppers
from loraone_theory.dynamics.endings import NEVER
from loraone_theory.dynamics.kept import KeptFactors
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.recorder import Recorder
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.dynamics.until import Earlier
from loraone_theory.methods.rules.base import State

# Finiteness is looked at once in so many steps; the exact step is found by repeating those.
CHECK_STEPS = 128


class Point(NamedTuple):
    """Where a run stands, in the coordinates of the loop."""

    step: int
    params: Params
    state: State
    diverged_at: Tensor  # (*batch), NEVER where it has not
    losses: Tensor  # (steps, *batch) at t = 0 and the last ones, that tell the status; or none


def start_of(plan: Plan) -> Point:
    """Before the first step."""
    never = torch.full(tuple(plan.batch.shape), NEVER, dtype=torch.int64)
    params = plan.start.trainable
    losses = plan.problem.like.new_empty(0, *plan.batch.shape).cpu()
    return Point(0, params, plan.rule.init(params), never, losses)


class Run:
    """The steps from a point on.

    Args:
        plan: of the runs.
        begin: where they stand.
        last: the step to end at.
        threads: how many may measure.
        pool: for all of them but one.
        earlier: what was recorded before it, of the record that says when to stop.
    """

    def __init__(
        self,
        plan: Plan,
        begin: Point,
        last: int,
        threads: int,
        pool: ThreadPoolExecutor,
        earlier: Earlier | None = None,
    ) -> None:
        self.plan, self.last, self.earlier, self.threads = plan, last, earlier, threads
        self.at = plan.recorded(begin.step, last)
        if begin.step > 0:
            self.at = self.at[self.at > begin.step]
        records, self.reasons = plan.split_records()
        self.stepper = steppers.make(plan)
        if begin.step > 0:
            self.stepper.load(begin.params, begin.state)
        direct = self.stepper.watch(records, self.at, threads, pool)
        others = {name: row for name, row in records.items() if name not in direct}
        self.recorder = Recorder(plan, others, self.at, threads, pool)
        self.recorder.store |= direct
        self._scatters = plan.settings.batches is not None
        self._window = self._ends_of(begin.step, last)
        missing = [t for t in self._window if t not in self._recorded]
        ahead = [t for t in missing if t < last]
        self._told = self.stepper.tell(ahead) if ahead else None
        left = np.array(
            [t for t in missing if self._told is None or t not in self._told], dtype=np.int64
        )
        loss = {"loss": RECORDS["loss"]} if len(left) else {}
        self._ends = Recorder(plan, loss, left, threads, pool)
        self.kept = KeptFactors(plan, begin.step, last)
        takers = (self.recorder, self.kept, self._ends)
        self._takers = [taker for taker in takers if taker.wanted]
        self._wanted = set().union(*(taker.wanted for taker in takers))
        self.begin, self.done = begin, begin.step
        self.diverged_at = begin.diverged_at.clone()
        self.reached: Tensor | None = None

    def advance(self, progress: Callable[[int], object] | None) -> None:
        """All steps, in chunks; stops early once every run has diverged or arrived."""
        stepper, until = self.stepper, self.plan.settings.until
        if self.begin.step == 0:
            self._keep(0)
            if until is not None:  # else the loss at t = 0 is looked at with the last one
                self._find_divergence(stepper.saved(), 0, 0)
        while self.done < self.last and not bool((self.diverged_at != NEVER).all()):
            first, stop = self.done, min(self.done + CHECK_STEPS, self.last)
            before = stepper.saved()
            self._walk(first, stop)
            self._find_divergence(before, first, stop)
            self.done = stop
            if progress is not None:
                progress(stop)
            if until is not None and self._arrived(before, first):
                break
        self._measure()

    def _measure(self) -> None:
        """What waits to be measured."""
        self.stepper.settle()
        self.recorder.measure()
        self._ends.measure()

    def _walk(self, first: int, stop: int) -> None:
        """The steps, with a halt wherever something is to be kept."""
        at = first
        for t in range(first + 1, stop + 1):
            if t in self._wanted or t == stop:
                self.stepper.steps(at, t)
                self._keep(t)
                at = t

    def _keep(self, t: int) -> None:
        for taker in self._takers:
            taker.keep(t, self.stepper.params)

    def _find_divergence(self, before: tuple[Params, State], first: int, stop: int) -> None:
        """Date the runs that stopped being finite between two checks, by repeating the steps.

        The loss is looked at where the run begins and ends; between, the factors tell. Where it
        was lost before the factors were, and before `first`, the steps are repeated from the start.
        """
        losses = self._losses_at(stop)
        if self.stepper.finite() and (not losses or all_finite(*losses)):
            return
        new = ~self._finite(*losses) & (self.diverged_at == NEVER)
        if not bool(new.any()):
            return
        present = self.stepper.saved()
        self.stepper.load(*before)
        if first > self.begin.step and bool((new & ~self._finite(self._loss, *losses[1:])).any()):
            self.stepper.load(self.begin.params, self.begin.state)
            first = self.begin.step
        for t in range(first, stop + 1):
            if t > first:
                self.stepper.step(t - 1)
            now = new & ~self._finite(self._loss)
            self.diverged_at[now] = t
            new = new & ~now
            if not bool(new.any()):
                break
        self.stepper.load(*present)

    def _losses_at(self, step: int) -> list[Tensor]:
        """L where the runs end, and then where they begin; between, none is looked at."""
        if step == 0:
            return [self._loss]
        if step < self.last:
            return []
        self._measure()
        begin = [self._start_loss] if self.begin.step == 0 else []
        return [self._loss_kept(step), *begin]

    def _finite(self, *losses: Tensor) -> Tensor:
        """Which runs have finite factors, and finite losses where they are told."""
        finite = [torch.isfinite(t).flatten(-2).all(-1) for t in self.stepper.params]
        finite += [torch.isfinite(loss) for loss in losses]
        found = torch.broadcast_tensors(*finite)
        return torch.stack(found).all(0).expand(self.plan.batch.shape).cpu()

    @cached_property
    def _recorded(self) -> frozenset[int]:
        """The steps at which the loss is recorded anyway."""
        mine = self.plan.settings.record.get("loss") is RECORDS["loss"]
        return frozenset(self.at.tolist() if mine else ())

    def _ends_of(self, first: int, last: int) -> list[int]:
        """The steps whose losses tell the status: t = 0, where it is among them, and the last."""
        ends = endings.window(first + (first > 0), last, minibatches=self._scatters)
        return [*([0] if first == 0 < ends[0] else []), *ends.tolist()]

    def _loss_kept(self, t: int) -> Tensor:
        """L at one of those steps, (*batch), from where it is once it has been measured."""
        if self._told is not None and t in self._told:
            return self._told[t]
        source = self._ends if t in self._ends.wanted else self.recorder
        return source.store["loss"][int(np.searchsorted(source.at, t))]

    @cached_property
    def _start_loss(self) -> Tensor:
        """L at t = 0, (*batch)."""
        if self.begin.step == 0:
            return self._loss_kept(0)
        if len(self.begin.losses) == 0:  # of a file that kept none
            return self._loss_of(self.plan.start.trainable)
        return self.begin.losses[0]

    @property
    def _loss(self) -> Tensor:
        """L now, (*batch)."""
        return self._loss_of(self.stepper.params)

    def _loss_of(self, params: Params) -> Tensor:
        now = tuple(t[None] for t in params)
        return RECORDS["loss"].measure(self.plan.view(now, lift=False))[0]

    def _arrived(self, before: tuple[Params, State], first: int) -> bool:
        """Whether every run that goes on is at its level; then back to the step of the last one."""
        until = self.plan.settings.until
        assert until is not None
        self.recorder.measure()
        done = int(np.searchsorted(self.at, self.done, "right"))
        values, at = self.recorder.store[until.record][:done], self.at
        if self.earlier is not None:
            values = torch.cat([self.earlier.values.to(values.device), values])
            at = np.concatenate([self.earlier.steps, at])
        index = until.first(values)
        gone = self.diverged_at.to(index.device) != NEVER
        steps = torch.from_numpy(at).to(index.device)[index.clamp_min(0)]
        self.reached = torch.where(index >= 0, steps, NEVER).cpu()
        if not bool(((index >= 0) | gone).all()) or bool((index < 0).all()):
            return False
        stop = max(int(self.reached.max()), first)
        if stop < self.done:
            self.stepper.load(*before)
            for t in range(first, stop):
                self.stepper.step(t)
            self.done = stop
        self.at = self.at[self.at <= stop]
        self.kept.cut(stop)
        return True

    def point(self) -> Point:
        """Where the runs stand now."""
        params, state = self.stepper.saved()
        done = self.last if bool((self.diverged_at != NEVER).all()) else self.done
        return Point(done, params, state, self.diverged_at, self._losses)

    def values(self) -> dict[str, Tensor]:
        """The records, with NaN from the step at which a run diverged."""
        whole, found = not bool((self.diverged_at != NEVER).any()), {}
        if not whole:
            steps = torch.from_numpy(self.at).reshape(-1, *[1] * self.diverged_at.ndim)
            gone = (self.diverged_at != NEVER) & (steps >= self.diverged_at)
        for name in self.plan.settings.record:
            if name in self.reasons:
                like = self.plan.problem.like
                found[name] = like.new_full((len(self.at), *self.plan.batch.shape), math.nan)
                continue
            value = self.recorder.store[name][: len(self.at)]
            if whole:
                found[name] = value
                continue
            mask = gone.reshape(*gone.shape, *[1] * (value.ndim - gone.ndim))
            found[name] = value.masked_fill(mask.to(value.device), math.nan)
        return found

    def statuses(self) -> np.ndarray:
        """One RunStatus per run."""
        dropped = self.plan.rule.dropped
        drops = None if dropped is None else dropped(self.stepper.state)
        losses = self._losses
        if endings.quiet(self.diverged_at, losses, drops):
            return np.full(tuple(self.plan.batch.shape), endings.COMPLETED, dtype=object)
        return endings.judge(
            self.diverged_at,
            losses,
            self._scale(),
            drops,
            self.done,
            minibatches=self._scatters,
        )

    @cached_property
    def _losses(self) -> Tensor:
        """Those that tell the status, once the steps are done."""
        origin = self._start_loss[None]
        if self.done < self.last or (self._told is None and not self._ends.wanted):
            tail = self.recorder.store.get("loss", origin)[: len(self.at)]
        else:
            tail = torch.stack([self._loss_kept(t) for t in self._window])
        number = endings.count(minibatches=self._scatters)
        tail = torch.cat([self.begin.losses[1:], tail[-number:].cpu()])[-number:]
        return torch.cat([origin.cpu(), tail])

    def _scale(self) -> Tensor:
        """The loss where nothing is added to the frozen part."""
        like, problem = self.plan.problem.like, self.plan.problem
        nothing = Factors(like.new_zeros(problem.d, 1), like.new_zeros(1, problem.k))
        return problem.loss(nothing).cpu().expand(self.plan.batch.shape)
