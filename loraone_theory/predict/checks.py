"""What predictions ask of their arguments before anything is computed.

A subclass may have other gradients, so that a prediction holds for exactly its own class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.sensing.problem import SensingProblem


def linear(problem: object) -> LinearProblem:
    """`problem` if it is a linear one, else TypeError."""
    if type(problem) is not LinearProblem:
        raise _unknown(problem, "the linear model")
    return problem


def measured(problem: object, *others: type) -> Any:
    """`problem` if it measures AB linearly, or is one of `others`, else TypeError."""
    if type(problem) not in (LinearProblem, SensingProblem, *others):
        raise _unknown(problem, "the linear model and of matrix sensing")
    return problem


def _unknown(problem: object, models: str) -> TypeError:
    remedy = (
        "predict.relu holds what is known of the ReLU model"
        if isinstance(problem, (ReLUProblem, ReLUPopulation))
        else 'lt.tune_step finds a step, and the record "sharpness" how long one may be'
    )
    return TypeError(f"this prediction is one of {models}; got {type(problem).__name__}; {remedy}")


def step_size(given: float | Tensor) -> float | Tensor:
    """A learning rate > 0, a number or a tensor (...), where NaN stands for an unknown one."""
    if isinstance(given, Tensor):
        given = validate.tensor("learning_rate", given, least_dims=0, finite=False)
        if bool((given <= 0).any()) or bool(torch.isinf(given).any()):
            raise ValueError(
                f"learning_rate must be finite and > 0; got {given.flatten().tolist()[:8]}"
            )
        return given
    return validate.number("learning_rate", given, positive=True)
