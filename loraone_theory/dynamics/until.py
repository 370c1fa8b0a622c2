"""When a batch of runs may stop early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate


class Earlier(NamedTuple):
    """What was recorded before a run goes on."""

    steps: np.ndarray
    values: Tensor  # (T, *batch) of the record that says when to stop


@dataclass(frozen=True)
class Until:
    """Stop once a record is at or below a level, in every run that has not diverged.

    The batch goes on until the last of its runs is there; `run.reached` says when each was. Runs
    that `extend` takes further stop as well, where they have not been there before.

    Args:
        record: one of those that are recorded, with one value per run.
        level: > 0.
        relative: the level is a multiple of the record's value at t = 0.

    >>> from loraone_theory.dynamics.loop import simulate
    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=8, k=6, true_rank=1, samples=80, seeds=(0, 1))
    >>> run = simulate(problem, "lora-one", rank=1, learning_rate=0.2, steps=1000,
    ...                until=Until("loss", 1e-6, relative=True))
    >>> bool((run["loss"][-1] <= 1e-6 * run["loss"][0]).all()), int(run.steps[-1]) < 1000
    (True, True)
    """

    record: str
    level: float
    relative: bool = False

    def __post_init__(self) -> None:
        validate.instance("record of until", self.record, str)
        validate.flag("relative of until", self.relative)
        level = validate.number("level of until", self.level, positive=True)
        object.__setattr__(self, "level", level)

    def first(self, values: Tensor) -> Tensor:
        """Index of the first time at the level, −1 where there is none: (T, *batch) -> (*batch)."""
        bound = self.level * values[0] if self.relative else torch.full_like(values[0], self.level)
        there = values <= bound
        return torch.where(there.any(0), there.int().argmax(0), -1)
