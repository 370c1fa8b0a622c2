"""All that is predicted of one method on one problem, in one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.names import MethodName
from loraone_theory.core.shown import Shown
from loraone_theory.methods import Method
from loraone_theory.predict import checks
from loraone_theory.predict.contraction import contraction
from loraone_theory.predict.floors import floor
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.trials import trial_seeds

UNKNOWN = "no initial error: the true shift of these labels is not known"


@dataclass(frozen=True, eq=False, repr=False)
class Summary(Shown):
    """What a method is predicted to do; NaN where a number is not defined, with a note why.

    Args:
        method: its name.
        rank: r.
        initial_error: ‖E₀‖_F, (...).
        floor: the least training loss that it can reach, (...).
        learning_rate: η of `local_rate`, (...): the one asked for, or `best_step`.
        local_rate: the factor per step near the solution, (...).
        largest_stable_step: the η above which the solution is unstable, (...).
        best_step: the η with the fastest local rate, (...).
        notes: one line for each thing that is missing or taken for granted.
    """

    method: str
    rank: int
    initial_error: Tensor
    floor: Tensor
    learning_rate: Tensor
    local_rate: Tensor
    largest_stable_step: Tensor
    best_step: Tensor
    notes: tuple[str, ...]


def summary(
    problem: LinearProblem,
    method: MethodName | str | Method,
    rank: int,
    *,
    learning_rate: float | None = None,
    seeds: Sequence[int] | None = None,
    damping: float = 0.0,
    solution: Factors | None = None,
) -> Summary:
    """Initial error, floor, local rate and step sizes of a method.

    Args:
        problem: batch (...).
        method: a name in `METHODS` or a Method.
        rank: r.
        learning_rate: η of the local rate; None for the best one.
        seeds: as for `simulate`.
        damping: λ of preconditioned rules.
        solution: as for `contraction`.

    Raises:
        TypeError: the problem is not linear.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=10**6)
    >>> found = summary(problem, "lora-one", 2)
    >>> found.floor, found.local_rate.round(decimals=1)
    (tensor([0.], dtype=torch.float64), tensor([0.3000], dtype=torch.float64))
    """
    checks.linear(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    if learning_rate is not None:
        learning_rate = validate.number("learning_rate", learning_rate, positive=True)
    chosen, drawn = methods.get(method, rank), trial_seeds(problem, seeds)
    near = contraction(problem, chosen, rank=rank, seeds=drawn, damping=damping, solution=solution)
    best, notes = near.best_step, near.notes
    if problem.true_rank == 0:
        notes += (UNKNOWN,)
    eta = best if learning_rate is None else torch.full_like(best, learning_rate)
    return Summary(
        method=chosen.name,
        rank=rank,
        initial_error=_initial_error(problem, chosen, rank, drawn),
        floor=floor(problem, chosen, rank=rank, seeds=drawn),
        learning_rate=eta,
        local_rate=near.rate(eta),
        largest_stable_step=near.largest_stable_step,
        best_step=best,
        notes=notes,
    )


def _initial_error(
    problem: LinearProblem, method: Method, rank: int, seeds: tuple[int, ...]
) -> Tensor:
    if problem.true_rank == 0:  # Δ is not known
        return problem.like.new_full(problem.batch_shape, torch.nan)
    start = method.init(problem, rank, seeds)
    fitted = problem if start.offset is None else problem.with_offset(start.offset)
    E = fitted.target
    if method.parametrisation.name != "full":  # which starts at 0, and d×k entries are many
        learned = method.parametrisation.shift(start.trainable, start.frozen)
        E = concatenate(learned, E._replace(A=-E.A))
    left, right = (torch.linalg.qr(part, mode="r").R for part in (E.A, E.B.mT))
    return torch.linalg.matrix_norm(left @ right.mT)
