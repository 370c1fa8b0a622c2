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

from loraone_theory.core.factors import Factors, Params
from loraone_theory.dynamics import endings, steppers
from loraone_theory.dynamics.endings import NEVER
from loraone_theory.dynamics.kept import KeptFactors
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.recorder import Recorder
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.methods.rules.base import State

# Finiteness is looked at once in so many steps; the exact step is found by repeating those.
CHECK_STEPS = 128


class Point(NamedTuple):
    """Where a run stands, in the coordinates of the loop."""

    step: int
    params: Params
    state: State
    diverged_at: Tensor  # (*batch), NEVER where it has not
    tail: Tensor  # (steps, *batch) the loss at the last ones, that the status is told from


def start_of(plan: Plan) -> Point:
    """Before the first step."""
    never = torch.full(tuple(plan.batch.shape), NEVER, dtype=torch.int64)
    params = plan.start.trainable
    tail = plan.problem.like.new_empty(0, *plan.batch.shape).cpu()
    return Point(0, params, plan.rule.init(params), never, tail)


class Run:
    """The steps from a point on.

    Args:
        plan: of the runs.
        begin: where they stand.
        last: the step to end at.
        threads: how many may measure.
        pool: for all of them but one.
    """

    def __init__(
        self, plan: Plan, begin: Point, last: int, threads: int, pool: ThreadPoolExecutor
    ) -> None:
        self.plan, self.last = plan, last
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
        self._ends = None
        loss = {"loss": RECORDS["loss"]}
        self._scatters = plan.settings.batches is not None
        ends = endings.window(begin.step + (begin.step > 0), last, minibatches=self._scatters)
        mine = plan.settings.record.get("loss") is loss["loss"]
        if not (mine and self.recorder.wanted.issuperset(ends.tolist())):
            self._ends = Recorder(plan, loss, ends, threads, pool)
        self.kept = KeptFactors(plan, begin.step, last)
        takers = (self.recorder, self.kept, *(() if self._ends is None else (self._ends,)))
        self._takers = [taker for taker in takers if taker.wanted]
        self._wanted = set().union(*(taker.wanted for taker in takers))
        self.begin, self.done = begin, begin.step
        self.diverged_at = begin.diverged_at.clone()
        self.reached: Tensor | None = None

    def advance(self, progress: Callable[[int], object] | None) -> None:
        """All steps, in chunks; stops early once every run has diverged or arrived."""
        stepper = self.stepper
        if self.begin.step == 0:
            self._keep(0)
            self._find_divergence(stepper.saved(), 0, 0)
        while self.done < self.last and not bool((self.diverged_at != NEVER).all()):
            first, stop = self.done, min(self.done + CHECK_STEPS, self.last)
            before = stepper.saved()
            self._walk(first, stop)
            self._find_divergence(before, first, stop)
            self.done = stop
            if progress is not None:
                progress(stop)
            if self.plan.settings.until is not None and self._arrived(before, first):
                break
        self.recorder.measure()
        if self._ends is not None:
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
        loss = self._loss_at(stop)
        there = [*self.stepper.params, *(() if loss is None else (loss,))]
        if bool(torch.stack([torch.isfinite(tensor).all() for tensor in there]).all()):
            return
        new = ~self._finite(loss) & (self.diverged_at == NEVER)
        if not bool(new.any()):
            return
        present = self.stepper.saved()
        self.stepper.load(*before)
        if first > self.begin.step and bool((new & ~self._finite(self._loss)).any()):
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

    def _loss_at(self, step: int) -> Tensor | None:
        """L where the runs begin and end, taken from what is recorded anyway; None between."""
        if step == 0:
            return self._start_loss
        if step == self.last:
            source = self.recorder if self._ends is None else self._ends
            source.measure()
            return source.store["loss"][source.measured - 1]
        return self._loss if step == self.begin.step else None

    def _finite(self, loss: Tensor | None) -> Tensor:
        """Which runs have finite factors, and a finite loss where one is told."""
        finite = [torch.isfinite(t).flatten(-2).all(-1) for t in self.stepper.params]
        if loss is not None:
            finite.append(torch.isfinite(loss))
        found = torch.broadcast_tensors(*finite)
        return torch.stack(found).all(0).expand(self.plan.batch.shape).cpu()

    @cached_property
    def _start_loss(self) -> Tensor:
        """L at t = 0, (*batch)."""
        if self._ends is not None and 0 in self._ends.wanted:
            self._ends.measure()
            return self._ends.store["loss"][0]
        return self._loss_of(self.plan.start.trainable)

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
        values = self.recorder.store[until.record][:done]
        index = until.first(values)
        gone = self.diverged_at.to(index.device) != NEVER
        steps = torch.from_numpy(self.at).to(index.device)[index.clamp_min(0)]
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
        return Point(done, params, state, self.diverged_at, self._losses()[1:])

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
        losses = self._losses()
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

    def _losses(self) -> Tensor:
        origin = self._start_loss[None]
        if self._ends is None or self.done < self.last:
            tail = self.recorder.store.get("loss", origin)[: len(self.at)]
        else:
            tail = self._ends.store["loss"]
        number = endings.count(minibatches=self._scatters)
        tail = torch.cat([self.begin.tail, tail[-number:].cpu()])[-number:]
        return torch.cat([origin.cpu(), tail])

    def _scale(self) -> Tensor:
        """The loss where nothing is added to the frozen part."""
        like, problem = self.plan.problem.like, self.plan.problem
        nothing = Factors(like.new_zeros(problem.d, 1), like.new_zeros(1, problem.k))
        return problem.loss(nothing).cpu().expand(self.plan.batch.shape)
