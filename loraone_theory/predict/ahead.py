"""What is predicted of a method before it runs, in any of the three models, one value per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.names import MethodName
from loraone_theory.core.shown import Shown
from loraone_theory.methods import Method
from loraone_theory.predict.best_fit import measured_floor
from loraone_theory.predict.contraction import Known, local_contraction
from loraone_theory.predict.floors import floor
from loraone_theory.predict.measured import measured_contraction
from loraone_theory.predict.rates import Contraction
from loraone_theory.predict.relu_contraction import relu_contraction
from loraone_theory.problems.base import Problem, check_problem, needed
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.trials import trial_seeds

NO_FLOOR = (
    "no floor: known of full fine-tuning and of A and B without an offset, near a known shift"
)
NOTHING_KNOWN = "no prediction: none is known of a {kind}"
NOISY_RELU = "no floor: none is known in the ReLU model of noisy labels"
NOISY_RELU_RATE = "no rate: none is known in the ReLU model of noisy labels"
NO_RELU_FLOOR = "no floor: none is known in closed form in the ReLU model"
NO_RELU_RATE = "no rate: known in the ReLU model for preconditioned descent at r = r*"


@dataclass(frozen=True, eq=False, repr=False)
class Outlook(Shown):
    """Floor, rate and best step of a method; NaN where a number is not defined, with a note why.

    Args:
        floor: the least training loss that it can reach, (seeds,).
        near: how it contracts near the solution.
        notes: what is missing or taken for granted.
    """

    floor: np.ndarray
    near: Contraction
    notes: tuple[str, ...]

    @property
    def best_step(self) -> float:
        """The step with the fastest local rate, the least over the instances."""
        return float(self.near.best_step.min())

    def loss_rate(self, learning_rate: float) -> np.ndarray:
        """The factor per step of √(L_t − floor) near the solution, (seeds,)."""
        return _spread(self.near.loss_rate(learning_rate), len(self.floor))


def outlook(
    problem: Problem,
    method: MethodName | str | Method,
    *,
    rank: int,
    seeds: Sequence[int] | None = None,
) -> Outlook:
    """Floor and local rate of a method on a linear, a ReLU or a sensing problem.

    On another problem, or on a class derived from these, whose gradients may be others, neither.

    Args:
        problem: batch (seeds,) or ().
        method: a name in `METHODS` or a Method.
        rank: r.
        seeds: as for `simulate`.

    Raises:
        TypeError: no problem.
        ValueError: a rank that does not fit, or a start that the method does not have there.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=10**6, seeds=(0, 1))
    >>> ahead = outlook(problem, "lora-one-preconditioned", rank=2)
    >>> ahead.floor, round(ahead.best_step, 2), ahead.loss_rate(0.5).round(2)
    (array([0., 0.]), 0.67, array([0.5, 0.5]))
    """
    return outlook_beside(problem, method, rank=rank, seeds=seeds, known={})


def outlook_beside(
    problem: Problem,
    method: MethodName | str | Method,
    *,
    rank: int,
    seeds: Sequence[int] | None,
    known: Known,
) -> Outlook:
    """`outlook` of one of several methods on the same problem: what ends alike is found once.

    Args:
        problem, method, rank, seeds: as for `outlook`.
        known: what was found for the others on this very problem; added to.
    """
    problem = check_problem(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen, drawn = methods.get(method, rank), trial_seeds(problem, seeds)
    trials = len(drawn)
    if type(problem) is SensingProblem:
        near = measured_contraction(problem, chosen, rank=rank, seeds=drawn)
        least = _spread(measured_floor(problem, chosen, rank=rank), trials)
        notes = (NO_FLOOR,) if np.isnan(least).any() else ()
        return Outlook(least, near, (*notes, *near.notes))
    if type(problem) in (ReLUProblem, ReLUPopulation):
        reached, near, told = _relu(problem, chosen, rank)
        return Outlook(np.full(trials, reached), near, told)
    if type(problem) is not LinearProblem:
        told = (NOTHING_KNOWN.format(kind=type(problem).__name__),)
        return Outlook(np.full(trials, math.nan), _no_rate(problem), told)
    near = local_contraction(problem, chosen, rank, drawn, 0.0, None, known)
    floors = floor(problem, chosen, rank=rank, seeds=drawn)
    return Outlook(_spread(floors, trials), near, near.notes)


def _no_rate(problem: Problem) -> Contraction:
    return Contraction(problem.like.new_full((*problem.batch_shape, 2), math.nan))


def _spread(values: Tensor, trials: int) -> np.ndarray:
    return np.broadcast_to(values.cpu().double().numpy(), (trials,)).copy()


def _relu(
    problem: Problem, method: Method, rank: int
) -> tuple[float, Contraction, tuple[str, ...]]:
    """A floor of 0 where the shift can be learned; rates of preconditioned GD at r = r*."""
    true_rank = needed(problem, "true_rank", "a prediction")
    if type(problem) is ReLUProblem and problem.noise is not None:
        return math.nan, _no_rate(problem), (NOISY_RELU, NOISY_RELU_RATE)
    if method.facts.ends_with is not None:
        rank = 0
    free = method.name in ("full", "full-adamw")
    reachable = free or (method.parametrisation.is_pair and not method.offset and rank >= true_rank)
    least = 0.0 if reachable else math.nan
    notes = () if reachable else (NO_RELU_FLOOR,)
    local = method.facts.local
    if local is None or local.weights != "preconditioned" or rank != true_rank or not reachable:
        return least, _no_rate(problem), (*notes, NO_RELU_RATE)
    near = relu_contraction(problem, scale=method.scale)
    return least, near, (*notes, *near.notes)
