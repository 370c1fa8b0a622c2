"""Local rates of a method on matrix sensing, at the solution that it reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.names import MethodName
from loraone_theory.methods import Method
from loraone_theory.predict.best_fit import best_fit
from loraone_theory.predict.contraction import BALANCED, HEAVY, PATH, RULES, imbalance
from loraone_theory.predict.exact import fits_exactly
from loraone_theory.predict.rates import Contraction, rates
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.trials import trial_seeds

NOISY = (
    "no rate: label noise moves the solution off the true shift, and no single best fit was found "
    "near it; pass run.final to predict.rates"
)
UNKNOWN = "no rate: the true shift is not known; pass run.final to predict.rates"
ELSE = "no rate: known for methods that train A and B without an offset"
LOWEST = "r ≠ r*: the rate at the lowest minimum found; a run can end in another"
SURPLUS = (
    "no rate: r > r* without noise, where the superfluous directions die out sublinearly or at a "
    "rate that depends on the start; pass run.final to predict.rates"
)


def measured_contraction(
    problem: SensingProblem,
    method: MethodName | str | Method,
    *,
    rank: int,
    seeds: Sequence[int] | None = None,
) -> Contraction:
    """The extreme μ of a method near AB = Δ, for any measurement operator.

    Those of `rates` at the balanced factors of a known Δ, r = r*, or with label noise and for
    r < r* at those of the best fit near it; else NaN, with a note. Small operators by LAPACK,
    others by Lanczos iteration with products.

    Args:
        problem: batch (...).
        method: a name in `METHODS` or a Method.
        rank: r.
        seeds: as for `simulate`.

    Raises:
        TypeError: another problem; predict.contraction is for the linear one.
        ValueError: a rank or a method that does not fit.

    Reference: derivations of sensing, section 5.

    >>> from loraone_theory.problems.sensing.sampling import sample_sensing
    >>> problem = sample_sensing(ensemble="dense", d=5, k=4, true_rank=1, measurements=60)
    >>> near = measured_contraction(problem, "lora-one-preconditioned", rank=1)
    >>> bool((near.rate(near.best_step) < 1).all())
    True
    """
    validate.instance("problem", problem, SensingProblem, "predict.contraction is the linear one")
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    local = chosen.facts.local
    if local is None:
        return _nothing(problem, chosen.facts.no_rate)
    if problem.shift is None:
        return _nothing(problem, UNKNOWN)
    if not chosen.parametrisation.is_pair or chosen.offset:
        return _nothing(problem, ELSE)
    exact = fits_exactly(problem)
    if exact and rank > problem.shift.rank:
        return _nothing(problem, SURPLUS)
    if exact and rank == problem.shift.rank:
        U, S, V = linalg.truncated_svd(problem.shift, rank)
        root = S.sqrt()
        at = Factors(U * root[..., None, :], root[..., None] * V.mT)
    else:
        fit = best_fit(problem, rank)
        determined = problem.measurements >= rank * (problem.d + problem.k - rank)
        if not determined or bool(fit.loss.isnan().any()):
            return _nothing(problem, NOISY)
        at = fit.at
    rule = RULES[local.weights]
    if rule == "gd":
        if local.momentum > 0:
            return _nothing(problem, HEAVY)
        A, B = chosen.init(problem, rank, trial_seeds(problem, seeds)).trainable
        size = imbalance(Factors(A, B), local.ratio, chosen.scale, at, 0.0)
        if size > BALANCED:
            return _nothing(problem, PATH.format(name=chosen.name, size=size))
    # λAᵀA = BBᵀ at the balanced pair's A/λ^¼, Bλ^¼; rates() takes factors with sAB = T.
    split, scale = local.ratio**0.25, chosen.scale**-0.5
    split_at = Factors(scale / split * at.A, scale * split * at.B)
    near = rates(
        problem, split_at, rule=rule, scale=chosen.scale, ratio=local.ratio, momentum=local.momentum
    )
    return near if rank == problem.shift.rank else replace(near, notes=(LOWEST, *near.notes))


def _nothing(problem: SensingProblem, note: str) -> Contraction:
    return Contraction(problem.like.new_full((*problem.batch_shape, 2), math.nan), notes=(note,))
