"""The seeds of trials: an instance that was drawn keeps its seed, and its trial starts from it."""

from __future__ import annotations

from collections.abc import Sequence

from loraone_theory.core import validate
from loraone_theory.problems.base import Problem, fact


def instance_count(problem: Problem) -> int:
    """How many instances lie along the last batch axis, 1 where there is none."""
    shape = problem.batch_shape
    return shape[-1] if shape else 1


def trial_seeds(problem: Problem, given: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds given; by default trial i has the seed of instance i, or i where none is known.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=(5, 6, 7))
    >>> trial_seeds(problem, None)
    (5, 6, 7)
    """
    if given is None:
        given = problem_seeds(problem) or range(instance_count(problem))
    return validate.seeds(given)


def problem_seeds(problem: Problem) -> tuple[int, ...] | None:
    """The seeds of the instances along the last batch axis, where they are known."""
    known = fact(problem, "seeds")
    return known if known is not None and len(known) == instance_count(problem) else None
