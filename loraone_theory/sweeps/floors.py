"""The floors that a run's loss and risk are held against, where they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loraone_theory import predict
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.problem import SensingProblem


def loss_floor(problem: Problem, plan: Any) -> np.ndarray:
    """The least training loss of the method's parametrisation, one for each instance.

    Raises:
        ValueError: it is not known for this problem.
    """
    if type(problem) is LinearProblem:
        settings = plan.settings
        found = predict.floor(problem, plan.chosen, rank=settings.rank, seeds=settings.seeds)
        return found.cpu().numpy()
    if type(problem) is SensingProblem:
        found = predict.measured_floor(problem, plan.chosen, rank=plan.settings.rank)
        if bool(found.isnan().any()):
            raise ValueError(
                f"no floor of the loss is known for {plan.chosen.name!r} on these measurements at "
                f"rank={plan.settings.rank}; give the measure a level"
            )
        return found.cpu().numpy()
    raise ValueError(
        f"no floor of the loss is known for this {type(problem).__name__}; give the measure a level"
    )


def risk_floor(problem: Problem, plan: Any) -> np.ndarray:
    """The risk that label noise leaves the best fit of rank r*, to first order.

    Raises:
        TypeError, ValueError: it is not known for this problem.
    """
    if not isinstance(problem, (LinearProblem, SensingProblem)):
        raise ValueError(
            f"no floor of the risk is known for this {type(problem).__name__}; give the measure a "
            "level"
        )
    return predict.noise_floor(problem, noise_std=problem.noise_std).cpu().numpy()


FLOORS: dict[str, Callable[[Problem, Any], np.ndarray]] = {"loss": loss_floor, "risk": risk_floor}
