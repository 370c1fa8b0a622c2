"""Factors over time, in the original coordinates."""

from __future__ import annotations

import torch

from loraone_theory.core.factors import Factors, Params
from loraone_theory.core.memory import refuse_beyond_memory
from loraone_theory.dynamics.plan import Plan


class KeptFactors:
    """The factors at every `keep_factors`-th step, where that is asked for.

    Args:
        plan: of the runs.
        first: the step that the runs stand at.
        last: the step to end at.
    """

    def __init__(self, plan: Plan, first: int, last: int) -> None:
        self._plan, every = plan, plan.settings.keep_factors
        steps = range(0) if every is None else range(first + -first % every, last + 1, every)
        if every is not None:
            self._refuse(len(steps))
        self.steps = [t for t in steps if t > first or first == 0]
        self._found: list[Factors] = []
        self.wanted = set(self.steps)

    def _refuse(self, times: int) -> None:
        runs = self._plan.batch.shape.numel()
        entries = runs * sum(t.shape[-2:].numel() for t in self._plan.outer(self._plan.first))
        refuse_beyond_memory(
            f"{times:,} times the factors of {runs} runs",
            times * (100 + entries * self._plan.problem.like.element_size()),
            "keep them more rarely: raise keep_factors",
        )

    def keep(self, t: int, params: Params) -> None:
        """Take the factors if t is one of the steps."""
        if t in self.wanted:
            lifted = self._plan.outer(self._plan.lifted(params))
            self._found.append(Factors(*(M.clone() for M in lifted)))

    def cut(self, stop: int) -> None:
        """Forget what comes after a step."""
        self.steps = [t for t in self.steps if t <= stop]
        self._found = self._found[: len(self.steps)]

    def factors(self) -> Factors | None:
        """(times, *batch, d, r) and (times, *batch, r, k), or None where none were asked for."""
        if self._plan.settings.keep_factors is None:
            return None
        self.steps = self.steps[: len(self._found)]  # all runs may have diverged before
        if not self._found:
            return None
        whole = self._plan.batch.shape
        parts = zip(*self._found, strict=True)
        return Factors(*(torch.stack([M.expand(*whole, *M.shape[-2:]) for M in p]) for p in parts))
