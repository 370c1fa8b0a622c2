"""What is kept of a batch of runs is estimated, and refused where it does not fit."""

from __future__ import annotations

from loraone_theory.core import memory
from loraone_theory.dynamics.batch import Batch
from loraone_theory.dynamics.settings import Settings
from loraone_theory.problems.base import Problem


def check(problem: Problem, batch: Batch, settings: Settings) -> None:
    """Records, and the factors of every run, fit in memory.

    Raises:
        ValueError: they do not; with the estimate.
    """
    runs, size = batch.shape.numel(), problem.like.element_size()
    recorded = settings.steps // settings.every + 2
    record = settings.record
    memory.refuse_beyond_memory(
        f"records of {len(record)} numbers at {recorded:,} steps of {runs:,} runs",
        # A step's number is kept as an integer of Python as well.
        recorded * (100 + len(record) * runs * size),
        "raise every, or record less",
    )
    rank, d, k = settings.rank, problem.d, problem.k
    memory.refuse_beyond_memory(
        f"factors of {runs:,} runs, d = {d}, k = {k}, r = {rank},",
        2 * runs * rank * (d + k) * size,
        "take fewer runs at once",
    )
