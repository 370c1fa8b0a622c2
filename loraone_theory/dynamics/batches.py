"""Minibatches: which training rows a step sees, as a pure function of (trial's seed, step).

There is no mutable stream: steps can be repeated or continued in any order. The seed of the trial
alone decides, so a trial sees the same rows alone and in a batch, and at every learning rate of a
sweep.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator
from loraone_theory.problems.base import Problem, fact, facts

SAMPLING = ("with-replacement", "epochs", "fresh")


@dataclass(frozen=True)
class Minibatches:
    """The rows of every step.

    Args:
        size: b.
        sampling: "with-replacement", b rows drawn independently; "epochs", a permutation of the
            rows cut into pieces, the last of which is smaller where b does not divide N; "fresh",
            b rows that were not seen before.
        seeds: of the trials.
        samples: N; None for fresh rows.
    """

    size: int
    sampling: str
    seeds: tuple[int, ...]
    samples: int | None

    def indices(self, t: int) -> Tensor:
        """The rows of the step from t to t + 1, (trials, b).

        >>> epochs = Minibatches(4, "epochs", (0,), 10)
        >>> [epochs.indices(t).shape[1] for t in range(4)]
        [4, 4, 2, 4]
        >>> torch.cat([epochs.indices(t) for t in range(3)], -1).sort().values.tolist()
        [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
        """
        N = self.samples
        assert N is not None  # fresh rows have no indices
        if self.sampling == "with-replacement":
            stream = f"batches/{t}"
            drawn = [generator(seed, stream).integers(N, size=self.size) for seed in self.seeds]
            return torch.from_numpy(np.stack(drawn))
        epoch, position = divmod(t, -(-N // self.size))
        start = position * self.size
        return _orders(self.seeds, N, epoch)[:, start : start + self.size]

    @property
    def even(self) -> bool:
        """Whether every step takes as many of the training rows."""
        if self.samples is None:
            return False
        return self.sampling != "epochs" or self.samples % self.size == 0

    def problem(self, whole: Problem, t: int) -> Problem:
        """The problem of the rows of the step from t to t + 1."""
        if self.sampling == "fresh":
            fresh: Any = fact(whole, "fresh")
            found: Problem = fresh(t, self.size, self.seeds)
            return found
        return self.of(whole, self.indices(t).to(whole.like.device))

    @staticmethod
    def of(whole: Problem, indices: Tensor) -> Problem:
        """The problem of the rows `indices` (trials, b)."""
        batch: Any = fact(whole, "batch")
        found: Problem = batch(indices)
        return found


@functools.lru_cache(maxsize=2)
def _orders(seeds: tuple[int, ...], N: int, epoch: int) -> Tensor:
    """A permutation of the rows for every trial, (trials, N)."""
    stream = f"batches/{epoch}"
    return torch.from_numpy(np.stack([generator(seed, stream).permutation(N) for seed in seeds]))


def minibatches(
    problem: Problem, size: Any, sampling: str | None, seeds: tuple[int, ...]
) -> Minibatches | None:
    """The minibatches that `simulate` was asked for, or None for the full gradient.

    Raises:
        TypeError, ValueError: arguments that do not fit each other or the problem.
    """
    if size is None:
        if sampling is not None:
            raise ValueError(
                f"sampling says how minibatches are drawn; got sampling={sampling!r} without "
                "batch_size; give batch_size, or leave sampling out"
            )
        return None
    b = validate.integer("batch_size", size, least=1)
    how = validate.choice(
        "sampling", "with-replacement" if sampling is None else sampling, SAMPLING
    )
    known = facts(problem)
    if how == "fresh":
        if known.fresh is None:
            raise ValueError(
                "sampling='fresh' draws new rows, and the law of the rows of this "
                f"{type(problem).__name__} is not known; draw it with a sampler, pass fresh= to "
                "from_loss, or use sampling='epochs'"
            )
        return Minibatches(b, how, seeds, None)
    if known.batch is None or known.samples is None:
        raise ValueError(
            f"batch_size needs training rows, and this {type(problem).__name__} has none; use "
            "sampling='fresh', or leave batch_size out"
        )
    if how == "epochs" and b > known.samples:
        raise ValueError(
            f"batch_size must be <= N without replacement; got batch_size={b} with "
            f"N={known.samples}; lower it or use sampling='with-replacement'"
        )
    made = Minibatches(b, how, seeds, known.samples)
    _refuse_sum(made, problem)
    return made


def _refuse_sum(made: Minibatches, problem: Problem) -> None:
    """A mean over rows is what it was when each of them comes twice; a sum is twice as large."""
    rows, like = made.indices(0).to(problem.like.device), problem.like
    shift = Factors(like.new_full((problem.d, 1), problem.d**-0.5), like.new_ones(1, problem.k))
    with torch.no_grad():
        once, twice = (
            made.of(problem, indices).loss(shift) for indices in (rows, torch.cat([rows, rows], -1))
        )
    digits = linalg.eps(like) ** 0.5
    if bool(((once != 0) & torch.isclose(twice, 2 * once, rtol=digits, atol=0)).any()):
        raise ValueError(
            "batch_size needs a loss that is a mean over its rows; got one that doubles when each "
            "row comes twice; divide it by the number of rows, or leave batch_size out"
        )
