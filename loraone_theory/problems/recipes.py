"""Problems again from the recipes that drawn ones keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from loraone_theory.problems.activation import sample_activation
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.laws import LAWS, STUDENT
from loraone_theory.problems.linear.lazy import sample_linear_lazy
from loraone_theory.problems.linear.sampling import (
    linear_population,
    sample_linear,
    sample_linear_matrix_free,
)
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population
from loraone_theory.problems.sensing.lazy import sample_dense_lazy
from loraone_theory.problems.sensing.sampling import sample_sensing

SAMPLERS: dict[str, Callable[..., Problem]] = {
    "sample_activation": sample_activation,
    "sample_linear": sample_linear,
    "sample_linear_matrix_free": sample_linear_matrix_free,
    "sample_linear_lazy": sample_linear_lazy,
    "sample_relu": sample_relu,
    "sample_relu_population": sample_relu_population,
    "sample_sensing": sample_sensing,
    "sample_dense_lazy": sample_dense_lazy,
}

# All that leave a recipe: those above, and what `testing` offers.
RECIPES: dict[str, Callable[..., Problem]] = {**SAMPLERS, "linear_population": linear_population}

LAW_NAMES = frozenset({*LAWS, *STUDENT})


def rebuild(recipe: Mapping[str, Any]) -> Problem:
    """The problem that a sampler drew with the arguments in a recipe.

    >>> drawn = sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=(3, 4))
    >>> bool((rebuild(drawn.recipe).shift.A == drawn.shift.A).all())
    True

    Raises:
        ValueError: its inputs were drawn by a function, of which the recipe has the name alone.
    """
    arguments = {name: value for name, value in recipe.items() if name != "sampler"}
    inputs = arguments.get("inputs", "gaussian")
    if inputs not in LAW_NAMES:
        raise ValueError(
            f"the inputs of this problem were drawn by a function of the user's own, {inputs}, "
            "which the record does not hold; hand the problem in again: problem=..."
        )
    if arguments.get("covariance") is not None:  # an array, which JSON has as lists
        arguments["covariance"] = torch.tensor(arguments["covariance"], dtype=torch.float64)
    return RECIPES[recipe["sampler"]](**arguments)
