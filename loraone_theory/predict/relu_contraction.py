"""Local rates of preconditioned GD on one ReLU problem, at r = r*."""

from __future__ import annotations

import math

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.predict.modes import DENSE_SIZE
from loraone_theory.predict.rates import Contraction, rates
from loraone_theory.predict.relu_modes import balanced
from loraone_theory.problems.base import Problem
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem

TOO_LARGE = (
    "no rate: r(d + k) = {size} is too large for the modes of one instance; "
    "predict.relu.finite_rate is their limit for wide problems"
)
NOISY = (
    "no rate: label noise moves the solution off the true shift, in the ReLU model to where no "
    "closed form says; pass run.final to predict.rates"
)


def relu_contraction(problem: Problem, *, scale: float = 1.0) -> Contraction:
    """The extreme μ of preconditioned GD near AB = Δ, r = r*, without an offset.

    N = ∞: ½ and 1, to first order in the relative shift. N samples: those of this instance, with
    the masks of the target weights, whatever k is; `relu.finite_rate` is their limit for wide,
    spread problems. NaN with a note for noisy labels.

    Args:
        problem: a ReLU problem, batch (...).
        scale: s.

    Raises:
        TypeError: another model.

    Reference: derivations 5.4.
    """
    s = validate.number("scale", scale, positive=True)
    if type(problem) is ReLUPopulation:
        ends = problem.like.new_tensor([0.5, 1.0]).expand(*problem.batch_shape, 2)
        return Contraction(s**2 * ends)
    if type(problem) is not ReLUProblem:
        raise TypeError(f"these are rates of the ReLU model; got {type(problem).__name__}")
    shift = problem.shift
    size = shift.rank * (problem.d + problem.k)
    nothing = problem.like.new_full((*problem.batch_shape, 2), math.nan)
    if problem.noise is not None:
        return Contraction(nothing, notes=(NOISY,))
    if size > DENSE_SIZE:
        return Contraction(nothing, notes=(TOO_LARGE.format(size=size),))
    A, B = balanced(shift)
    at = Factors(A / s**0.5, B / s**0.5)
    return rates(problem, at, rule="preconditioned", scale=s)
