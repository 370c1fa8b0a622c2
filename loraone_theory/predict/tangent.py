"""Local rates of GD and preconditioned GD where AB can equal Δ, at r = r*."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.predict import checks
from loraone_theory.predict.floors import pair_solution
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.predict.rates import Contraction, rates
from loraone_theory.predict.seen import seen
from loraone_theory.predict.tangent_map import RuleName
from loraone_theory.problems.linear.problem import LinearProblem


def tangent_extremes(
    problem: LinearProblem, rule: RuleName = "gd", *, solution: Factors | None = None
) -> Tensor:
    """Smallest and largest eigenvalue of the operator by which the residual contracts near AB = Δ.

    GD: E ↦ Σ̂E BᵀB + AAᵀΣ̂E. Preconditioned GD: E ↦ Σ̂E P_B + P_AΣ̂E. On the row space of Δ,
    which runs from LoRA-init and Spectral-init never leave, the columns decouple in the eigenbasis
    of BᵀB: the spectrum is the union over its eigenvalues β of that of βΣ̂ + Σ̂^{1/2}AAᵀΣ̂^{1/2}
    (preconditioned: β = 1 and P_A for AAᵀ, so S does not enter and κ plays no part).

    Args:
        problem: batch (...), solved at rank r = r*; with label noise at the best fit of that rank.
        rule: "gd" or "preconditioned".
        solution: A (..., d, r*), B (..., r*, k) with AB = Δ; default the balanced one,
            A = US^{1/2}, B = S^{1/2}Vᵀ.

    Returns:
        (..., 2), ascending; the smallest is 0 for N < d.

    Reference: derivations 3.7; App. C.2, C.3.
    """
    return _near(problem, rule, solution).extremes


def _near(problem: LinearProblem, rule: RuleName, solution: Factors | None = None) -> Contraction:
    checks.linear(problem)
    validate.choice("rule", rule, ("gd", "preconditioned"))
    if solution is None:
        part = seen(noiseless(problem))
        rank = problem.true_rank if problem.noise is not None else part.problem.true_rank
        A, B = pair_solution(part.problem, rank=validate.integer("true_rank", rank, least=1))
        solution = Factors(A if part.basis is None else part.basis @ A, B)
    elif checked("solution", solution, d=problem.d, k=problem.k).rank != problem.true_rank:
        raise ValueError(
            "local rates are those of an isolated solution: its rank must equal true_rank; "
            f"got rank={solution.rank} with true_rank={problem.true_rank}"
        )
    return rates(problem, solution, rule=rule)


def local_rate(
    problem: LinearProblem,
    rule: RuleName = "gd",
    *,
    learning_rate: float | Tensor,
    solution: Factors | None = None,
) -> Tensor:
    """The factor by which ‖E‖_F contracts per step near AB = Δ, max |1 − ημ|, shape (...).

    A value >= 1 means that the solution is unstable, or for N < d that a part of E is at rest.
    Args as for `tangent_extremes`. Reference: derivations 3.7.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=30, k=20, true_rank=2, samples=10**5)
    >>> bool((local_rate(problem, "preconditioned", learning_rate=0.5) - 0.5).abs() < 0.05)
    True
    """
    eta = checks.step_size(learning_rate)
    return _near(problem, rule, solution).rate(eta)


def largest_stable_step(problem: LinearProblem, rule: RuleName = "gd") -> Tensor:
    """2/μ_max: above it the balanced solution is unstable, shape (...)."""
    return _near(problem, rule).largest_stable_step


def best_step(problem: LinearProblem, rule: RuleName = "gd") -> Tensor:
    """2/(μ_min + μ_max) over the modes that move, the step with the fastest rate, shape (...)."""
    return _near(problem, rule).best_step
