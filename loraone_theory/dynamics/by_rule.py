"""Steps of any method on any problem, by gradient and rule; recorded where a device does that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.factors import Factors, Params
from loraone_theory.core.wording import kind
from loraone_theory.dynamics import capture, own_rules
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.stepper import Stepper
from loraone_theory.dynamics.told import Told
from loraone_theory.methods.rules.base import State
from loraone_theory.problems.base import fact
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem


class Gradients(Protocol):
    """Another way to a problem's gradients, which has the loss besides."""

    def gradients(self, shift: Factors) -> Factors:
        """(∇_A L, ∇_B L)."""

    def loss_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """L (...) with them."""


class Telling(NamedTuple):
    """How losses come with gradients.

    Args:
        with_gradients: shift -> what is seen (*batch, ...), and the gradients.
        losses: of what was seen at several times, stacked, (times, *batch).
    """

    with_gradients: Callable[[Factors], tuple[Tensor, Factors]]
    losses: Callable[[Tensor], Tensor]


class ByRule(Stepper):
    """Any method on any problem: gradient, pullback, rule, from time-t values to new tensors.

    Args:
        plan: of the runs.
        other: another way to the problem's own gradients.
    """

    def __init__(self, plan: Plan, other: Gradients | None = None) -> None:
        self._other = other
        self._plan = plan
        self._rule = plan.rule
        self._scheduled = plan.batch.rates.scheduled
        self._problem = plan.problem
        self._batched = plan.settings.batches is not None
        self._own = plan.method.train.own is not None
        self.params = plan.start.trainable
        if self._own:  # whatever it does to them, the start stays
            self.params = tuple(tensor.clone() for tensor in self.params)
        self.state = plan.rule.init(self.params)
        # What a recorded step reads anew each time: η, and the rows that it takes.
        self._rate: Tensor | None = None
        self._rows: Tensor | None = None
        self._telling: Telling | None = None
        self._told: list[Told] = []
        self._looked = False  # at the form of the gradients
        self._at = 0  # the step that is made
        self._last = -1  # where the loss is recorded without a step from there on
        self._recorded = self._record()
        if self._recorded is not None:
            self.params, self.state = self._recorded.buffers
        self._telling = self._that_tells()

    def _that_tells(self) -> Telling | None:
        """In the ReLU model, where every step takes all samples or none are drawn."""
        problem = self._problem
        if self._rule.advance is not None or self._recorded is not None or self._batched:
            return None
        if self._other is not None:
            return Telling(self._other.loss_and_gradients, _as_it_is)
        if type(problem) is ReLUProblem:
            return Telling(problem.loss_and_gradients, _as_it_is)
        if type(problem) is ReLUPopulation:
            return Telling(problem.seen_and_gradients, problem.loss_of)
        return None

    def watch(
        self,
        records: Mapping[str, Record],
        at: np.ndarray,
        threads: int,
        pool: ThreadPoolExecutor,
    ) -> dict[str, Tensor]:
        """The loss, where the steps tell it and none is looked at on the way."""
        mine = records.get("loss") is RECORDS["loss"] and self._plan.settings.until is None
        told = self.tell(at.tolist()) if mine else None
        if told is None:
            return {}
        self._last = int(at[-1])
        return {"loss": told.losses}

    def tell(self, steps: Sequence[int]) -> Told | None:
        """The losses at these steps, which the step from there on tells."""
        if self._telling is None:
            return None
        unknown = self._problem.like.new_full(self._plan.batch.shape, torch.nan)
        told = Told(steps, self._telling.losses, unknown)
        self._told.append(told)
        return told

    def settle(self) -> None:
        """What has been seen becomes losses."""
        for told in self._told:
            told.settle()

    def _record(self) -> capture.Recorded | None:
        """The step as a graph over buffers; None where it is not the same work at every step."""
        batches, rates, like = self._plan.settings.batches, self._plan.batch.rates, self.params[0]
        if not capture.records(like) or not self._rule.replays:
            return None
        if batches is not None:
            if not batches.even:
                return None
            self._rows = batches.indices(0).to(like.device, copy=True)
            self._problem = batches.of(self._plan.problem, self._rows)
        if not fact(self._problem, "replays"):
            self._forget()
            return None
        if self._scheduled:
            first = torch.as_tensor(rates.at(rates.first), dtype=like.dtype, device=like.device)
            self._rate = first.clone()
            self._rule = self._plan.rule_with(self._rate)
        found = capture.recorded(self._replayed, (self.params, self.state), like=like)
        if found is None:
            self._forget()
        return found

    def _forget(self) -> None:
        """Back to what a step that is not recorded goes by."""
        self._rate = self._rows = None
        self._rule, self._problem = self._plan.rule, self._plan.problem

    def _replayed(self, now: tuple[Params, State]) -> tuple[Params, State]:
        batches = self._plan.settings.batches
        if batches is not None and self._rows is not None:
            self._problem = batches.of(self._plan.problem, self._rows)
        return self._next(*now)

    def _turn_to(self, t: int) -> None:
        """Rate and rows of the step from t to t + 1, to where the recorded step reads them."""
        batches, rates = self._plan.settings.batches, self._plan.batch.rates
        if self._rate is not None:
            rate = rates.at(t)
            self._rate.copy_(rate) if isinstance(rate, Tensor) else self._rate.fill_(rate)
        if self._rows is not None and batches is not None:
            self._rows.copy_(batches.indices(t))

    def step(self, t: int) -> None:
        """One step of the method from time-t values."""
        if self._recorded is not None:
            self._turn_to(t)
            self._recorded.graph.replay()
            return
        if self._scheduled:
            self._rule = self._plan.rule_at(t)
        if self._batched:
            self._problem = self._plan.problem_at(t)
        self._at = t
        self._make_step()
        if t + 1 == self._last:  # as a step from there on would tell it
            self._at = self._last
            self._gradients(self.params)

    def _make_step(self) -> None:
        if self._own:
            name = self._plan.method.train.name
            self.params, self.state = own_rules.held(name, self.params, self.state, self._next)
        else:
            self.params, self.state = self._next(self.params, self.state)

    def _next(self, params: Params, state: State) -> tuple[Params, State]:
        rule = self._rule
        if rule.advance is not None:
            return rule.advance(params, self._gradients, state)
        return rule.update(params, self._gradients(params), state)

    def _gradients(self, params: Params) -> Params:
        method, frozen = self._plan.method.parametrisation, self._plan.start.frozen
        shift = method.shift(params, frozen)
        wanted = [told for told in self._told if self._at in told]
        if self._telling is not None and wanted:
            seen, gradients = self._telling.with_gradients(shift)
            wanted[0].see(self._at, seen)
        else:
            source = self._problem if self._other is None else self._other
            gradients = source.gradients(shift)
            if not self._looked:
                _fit(source, gradients, shift)
                self._looked = True
        return method.pullback(params, frozen, gradients)

    def saved(self) -> tuple[Params, State]:
        """The present tensors, copied if steps overwrite them."""
        if self._recorded is not None:
            params, state = self._recorded.saved()
            return params, state
        return self.params, self.state

    def load(self, params: Params, state: State) -> None:
        """Go on from a saved state."""
        if self._recorded is not None:
            self._recorded.load((params, state))
        else:
            self.params, self.state = params, state


def _fit(problem: object, gradients: Any, shift: Factors) -> None:
    """Gradients of the factors' own shapes, or an error that names the problem.

    Raises:
        TypeError: they are something else.
    """
    wanted = [tuple(M.shape[-2:]) for M in shift]
    pair = isinstance(gradients, tuple) and len(gradients) == 2
    if pair and all(isinstance(M, Tensor) for M in gradients):
        found: object = [tuple(M.shape[-2:]) for M in gradients]
    else:
        found = kind(gradients)
    if found != wanted:
        raise TypeError(
            f"gradients of {type(problem).__name__} must be lt.Factors (∇_A L, ∇_B L) of shapes "
            f"{wanted[0]} and {wanted[1]}; got {found}; lt.testing.check_problem says more"
        )


def _as_it_is(losses: Tensor) -> Tensor:
    return losses
