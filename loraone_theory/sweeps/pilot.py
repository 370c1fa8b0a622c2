"""The learning rate "best": what is predicted, where that holds on a pilot, else a search there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from loraone_theory import predict
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method
from loraone_theory.predict.curves import distance
from loraone_theory.predict.tuning import GRID, best
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.problem import SensingProblem

# Instances of the pilot, the same whatever seeds the sweep has.
PILOT_SEEDS = (0, 1, 2, 3)


def best_rate(
    draw: Callable[[tuple[int, ...]], Problem], method: Method, run: Mapping[str, Any]
) -> float:
    """The learning rate to take.

    The predicted best step near the solution (the least over the pilot's instances), unless a run
    of the pilot diverges with it or ends with a larger loss than it began with; else the best of a
    grid of powers of two, as `tune_step` has it.

    Args:
        draw: seeds -> a problem with an instance for each.
        method: which.
        run: further arguments of `simulate`.
    """
    problem = draw(PILOT_SEEDS)
    least = _floor(problem, method, run["rank"])
    predicted = _predicted(problem, method, run)
    if math.isfinite(predicted) and predicted > 0:
        excess = _excess(problem, method, [predicted], run, least)
        if np.isfinite(excess[-1]).all() and (excess[-1] <= 1).all():
            return predicted
    return GRID[best(_excess(problem, method, list(GRID), run, least))]


def _excess(
    problem: Problem, method: Method, rates: list[float], run: Mapping[str, Any], least: np.ndarray
) -> np.ndarray:
    """Distances to the floor (T + 1, rates, seeds), infinite where a run has diverged."""
    given = {**run, "record": ("loss",), "every": 1, "until": None}
    found = simulate(problem, method, learning_rate=rates, **given)
    return distance(found["loss"].cpu().numpy(), least)


def _floor(problem: Problem, method: Method, rank: int) -> np.ndarray:
    if type(problem) is not LinearProblem:
        return np.zeros(())
    return predict.floor(problem, method, rank=rank, seeds=PILOT_SEEDS).cpu().numpy()


def _predicted(problem: Problem, method: Method, run: Mapping[str, Any]) -> float:
    """The least best step over the instances, NaN where none is predicted."""
    given: dict[str, Any] = {"rank": run["rank"], "seeds": PILOT_SEEDS}
    if type(problem) is LinearProblem:
        near = predict.contraction(problem, method, damping=run["damping"], **given)
    elif type(problem) is SensingProblem and run["damping"] == 0:
        near = predict.measured_contraction(problem, method, **given)
    else:
        return math.nan
    return float(near.best_step.min())
