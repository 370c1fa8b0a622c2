"""Hypothesis strategies for methods at stable step sizes, and for their runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from loraone_theory import methods, predict
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.testing.strategies import problems, st

# Taken where no largest stable step is predicted, over the largest eigenvalue of the covariance.
CAREFUL = 0.01
# Of the largest step that is stable near the solution: runs start away from it.
SHARES = (0.02, 0.2)
# Methods of every kind of start, that run without settings of their own.
USUAL = ("full", "lora", "lora-one", "lora-one-preconditioned", "lora-ga", "p-lora")


class Stable(NamedTuple):
    """A method by name, and settings at which its runs on a problem stay finite."""

    method: str
    rank: int
    learning_rate: float
    damping: float


@st.composite
def stable_methods(
    draw: st.DrawFn, problem: LinearProblem, *, names: Sequence[str] = USUAL
) -> Stable:
    """A method of `names` at r = r* and a share of its largest stable step on the problem."""
    rank = problem.true_rank
    fitting = [n for n in names if n != "lora-ga" or 2 * rank <= min(problem.d, problem.k)]
    name = draw(st.sampled_from(fitting))
    found = float(predict.summary(problem, name, rank).largest_stable_step.min())
    top = max(1.0, float(problem.covariance_spectrum().max()))
    step = CAREFUL / top if math.isnan(found) else found * draw(st.floats(*SHARES))
    damping = 1e-3 if methods.get(name).facts.inverts else 0.0
    return Stable(name, rank, step, damping)


@st.composite
def runs(
    draw: st.DrawFn, *, names: Sequence[str] = USUAL, steps: int = 20, batch: int = 1
) -> Trajectory:
    """Runs of such a method on a linear problem; `run.config` holds all of it."""
    problem = draw(problems(batch=batch, condition_number=3.0))
    name, rank, eta, damping = draw(stable_methods(problem, names=names))
    return simulate(problem, name, rank=rank, learning_rate=eta, damping=damping, steps=steps)
