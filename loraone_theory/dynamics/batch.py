"""The batch of runs: which axes it has, and what lies along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from loraone_theory.core.factors import Scalar
from loraone_theory.dynamics.rates import Rates, text
from loraone_theory.problems.base import Problem
from loraone_theory.problems.trials import instance_count, problem_seeds

Coordinates = dict[str, tuple[float | str, ...]]


@dataclass(frozen=True)
class Batch:
    """The batch of runs: hyper-parameter axes first, then the instances' axes, seeds last."""

    axes: tuple[str, ...]
    coordinates: Coordinates
    shape: torch.Size
    rates: Rates
    hyper: dict[str, Scalar]  # the others: numbers, or tensors (*batch-broadcastable, 1, 1)


def make(problem: Problem, seeds: tuple[int, ...], hyper: dict[str, Any]) -> Batch:
    """Name and size the batch axes; lists among `hyper` become leading axes, in their order."""
    instances, last = problem.batch_shape, instance_count(problem)
    if last > 1 and len(seeds) not in (1, last):
        raise ValueError(
            "on a batched problem trial i runs on instance i: seeds must hold one seed, or as "
            f"many as there are instances; got {len(seeds)} seeds for {last} instances"
        )
    trials = (*instances[:-1], max(last, len(seeds)))
    swept = {name: value for name, value in hyper.items() if isinstance(value, list)}
    shape = torch.Size((*(len(v) for v in swept.values()), *trials))
    places = {name: axis for axis, name in enumerate(swept)}
    ndim = len(shape)
    numbers: dict[str, Scalar] = {}
    for name, value in hyper.items():
        if name in swept and name != "learning_rate":
            trailing = ndim - places[name] - 1
            column = torch.tensor(value, dtype=torch.float64).to(problem.like)
            numbers[name] = column.reshape(-1, *([1] * trailing), 1, 1)
        elif name != "learning_rate":
            numbers[name] = value
    rates = Rates(hyper["learning_rate"], places.get("learning_rate", 0), ndim, problem.like)
    axes = (*swept, *(f"instance{i}" for i in range(len(instances) - 1)), "seed")
    coordinates: Coordinates = {
        name: tuple(text(value) for value in values) for name, values in swept.items()
    }
    for i, size in enumerate(instances[:-1]):
        coordinates[f"instance{i}"] = tuple(range(size))
    coordinates["seed"] = _one_each(seeds, trials[-1])
    known = problem_seeds(problem)
    if known is not None and _one_each(known, trials[-1]) != coordinates["seed"]:
        coordinates["problem_seed"] = _one_each(known, trials[-1])
    return Batch(axes, coordinates, shape, rates, numbers)


def _one_each(seeds: tuple[int, ...], trials: int) -> tuple[int, ...]:
    return seeds if len(seeds) == trials else seeds * trials
