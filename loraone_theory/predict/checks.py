"""What predictions ask of their arguments before anything is computed.

A subclass may have other gradients, so that a prediction holds for exactly its own class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.problem import SensingProblem


def linear(problem: object) -> LinearProblem:
    """`problem` if it is a linear one, else TypeError."""
    if type(problem) is not LinearProblem:
        raise TypeError(
            "this prediction is one of the linear model; "
            f"got {type(problem).__name__}; predict.relu holds what is known of the ReLU model"
        )
    return problem


def measured(problem: object, *others: type) -> Any:
    """`problem` if it measures AB linearly, or is one of `others`, else TypeError."""
    if type(problem) not in (LinearProblem, SensingProblem, *others):
        raise TypeError(
            "this prediction is one of the linear model and of matrix sensing; "
            f"got {type(problem).__name__}; predict.relu holds what is known of the ReLU model"
        )
    return problem


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
