"""A case that is timed on a card: the work of ours, and the same as a user would write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from loraone_theory.bench.gpu_loops import FORMS, Run
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.base import Problem

RANK, TRUE_RANK = 8, 4
ETA = 1 / 64


@dataclass(frozen=True)
class Case:
    """Ours and what it stands beside.

    Args:
        name: of its rows.
        like: a tensor of its dtype.
        ours: what is timed, by the words that it adds to the name.
        baselines: what it is timed against, by form.
        said: form -> what the row says of that baseline.
        steps: that all of them make, which the seconds of ours are divided by.
        their_scale: what the baseline's seconds are multiplied by.
        work: "bytes" that a step must move and "operations" that it must do.
        notes: of its rows.
    """

    name: str
    like: Tensor
    ours: dict[str, Run]
    baselines: dict[str, Run]
    said: dict[str, str]
    steps: int
    their_scale: float
    work: dict[str, float]
    notes: dict[str, Any] = field(default_factory=dict)


def case_of(
    name: str, like: Tensor, forms: dict[str, Run], text: str, steps: int, **more: Any
) -> Case:
    """A case whose baseline makes as many steps, in each of the usual forms."""
    said = {form: f"{text}: {FORMS[form]}" for form in forms}
    return Case(name, like, baselines=forms, said=said, steps=steps, their_scale=1 / steps, **more)


def ours_of(
    problem: Problem, steps: int, *, rate: float = ETA, reduce: str = "auto", **more: Any
) -> Trajectory:
    """A run of plain descent."""
    return simulate(
        problem, "lora", rank=RANK, learning_rate=rate, steps=steps, reduce=reduce, **more
    )
