"""Alignment in closed form: the dynamics without its nonlinear part, and the plateau."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.predict import checks
from loraone_theory.predict.floors import pair_solution
from loraone_theory.problems.base import needed
from loraone_theory.problems.linear.problem import LinearProblem


def plateau(problem: LinearProblem, *, rank: int | None = None) -> Tensor:
    """Where the alignment of an over-ranked run from small LoRA-init settles.

    A_t first aligns with U(G) = span(Σ̂U), then drifts to U(Δ); the alignment ends at
    sin ∠_max(U(Δ), Σ̂U(Δ)), shape (...), whatever Σ is: with many samples at the angle between U
    and ΣU. With label noise it drifts to U_{r*} of the best fit of rank r, from U_{r*}(G).

    Args:
        problem: batch (...).
        rank: r, which matters under label noise only.

    Raises:
        ValueError: label noise without a rank; a Δ that is not known.

    Reference: derivations 3.6.
    """
    needed(checks.linear(problem), "shift", "the plateau")
    if rank is not None:
        rank = validate.rank(rank, d=problem.d, k=problem.k)
    if problem.noise is not None:
        return _noisy_plateau(problem, rank)
    first, _ = linalg.left_frame(problem.shift.A, problem.true_rank)
    second, _ = linalg.left_frame(problem.covariance.apply(problem.shift.A), problem.true_rank)
    return linalg.largest_sine(first, second)


def _noisy_plateau(problem: LinearProblem, rank: int | None) -> Tensor:
    if rank is None:
        raise ValueError(
            "with label noise the plateau is that of the best fit of rank r, which takes noise in "
            "beyond r*; pass rank=r"
        )
    true_rank = problem.true_rank
    first, _, _ = linalg.truncated_svd(problem.one_step_gradient(), true_rank)
    fit = pair_solution(problem, rank=rank)
    second, _, _ = linalg.truncated_svd(fit, true_rank)
    return linalg.largest_sine(first, second)


def linearised(
    problem: LinearProblem,
    initial: Factors,
    learning_rate: float,
    steps: Sequence[int] | np.ndarray,
) -> Factors:
    """HᵗZ₀, the dynamics of Z = [A; Bᵀ] without its nonlinear part, in closed form.

    H = [[I, ηG], [ηGᵀ, I]]. On singular triplet (λ_i, U_i, V_i) of G, with
    c_i = ½[(1+ηλ_i)ᵗ + (1−ηλ_i)ᵗ] and s_i = ½[(1+ηλ_i)ᵗ − (1−ηλ_i)ᵗ]:
    U_iᵀA_t = c_i U_iᵀA₀ + s_i V_iᵀB₀ᵀ and V_iᵀB_tᵀ = c_i V_iᵀB₀ᵀ + s_i U_iᵀA₀; the rest is at rest.

    Args:
        problem: batch (...).
        initial: A₀ (..., d, r), B₀ (..., r, k).
        learning_rate: η.
        steps: the times t, T of them.

    Returns:
        Factors of shapes (T, ..., d, r) and (T, ..., r, k).

    Reference: proof of T3.2.
    """
    checks.linear(problem)
    initial = checked(
        "initial", initial, d=problem.d, k=problem.k, like=problem.like, batch=problem.batch_shape
    )
    learning_rate = validate.number("learning_rate", learning_rate, positive=True)
    times = [validate.integer("steps", step, least=0) for step in validate.sequence("steps", steps)]
    # Noise gives G every singular value; without it those beyond r* are zero.
    width = problem.true_rank if problem.noise is None else min(problem.d, problem.k)
    U, S, V = linalg.truncated_svd(problem.one_step_gradient(), width)
    A, Bt = initial.A, initial.B.mT
    a, b = U.mT @ A, V.mT @ Bt
    t = torch.tensor(times, dtype=S.dtype, device=S.device)
    t = t.reshape(-1, *[1] * max(a.ndim, 2))
    rate = learning_rate * S[..., :, None]
    up, down = (1 + rate) ** t, (1 - rate) ** t
    c, s = (up + down) / 2, (up - down) / 2
    return Factors(A + U @ ((c - 1) * a + s * b), (Bt + V @ ((c - 1) * b + s * a)).mT)


def linearised_alignment(
    problem: LinearProblem,
    initial: Factors,
    learning_rate: float,
    steps: Sequence[int] | np.ndarray,
) -> Tensor:
    """‖U_{r*,⊥}(G)ᵀU_{r*}(A_t)‖_op along the linearised dynamics, shape (T, ...).

    Reference: proof of T3.2.
    """
    needed(checks.linear(problem), "shift", "the alignment with its rank")
    U, _, _ = linalg.truncated_svd(problem.one_step_gradient(), problem.true_rank)
    A = linearised(problem, initial, learning_rate, steps).A
    frame, defined = linalg.left_frame(A, problem.true_rank)
    return torch.where(defined, linalg.largest_sine(U, frame), torch.nan)


def alignment_time(
    d: int, theta: float, learning_rate: float, singular_value: float | Tensor
) -> float | Tensor:
    """ln(√d/θ)/ln(1 + ηλ), the scale of the time to reach alignment θ (T3.2).

    `singular_value` is λ = λ_{r*}(G); T3.2 leaves the constant in front open.
    """
    d, theta = validate.integer("d", d, least=1), validate.number("theta", theta, positive=True)
    eta = validate.number("learning_rate", learning_rate, positive=True)
    if isinstance(singular_value, Tensor):
        validate.tensor("singular_value", singular_value, least_dims=0)
    else:
        validate.number("singular_value", singular_value, positive=True)
    growth = eta * singular_value
    down = torch.log1p(growth) if isinstance(growth, Tensor) else math.log1p(growth)
    return math.log(math.sqrt(d) / theta) / down
