"""The least loss that a parametrisation can reach, and the factors that reach it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.names import MethodName
from loraone_theory.methods import Method
from loraone_theory.predict import checks
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.trials import trial_seeds


def floor(
    problem: LinearProblem,
    method: MethodName | str | Method,
    *,
    rank: int,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """The least training loss that a method's parametrisation can reach.

    A pair AB against the target T = Δ + offset: ½ Σ_{i>r} σ_i²(Σ̂^{1/2}T) (Eckart–Young in the
    Σ̂ metric). P diag(λ) Q: the same at the rank that AdaLoRA's budget ends with. A R B with A, B
    frozen: the least-squares value over R. Full fine-tuning: 0. With label noise Σ̂^{1/2}T becomes
    CT + Z̃, and the constant c is added.

    Args:
        problem: batch (...).
        method: a name in `METHODS` or a Method; its offset or frozen factors come from its own
            initialisation with these `seeds`.
        rank: r.
        seeds: as for `simulate`.

    Returns:
        Losses (...), exactly 0 where the rank of T is at most r.

    Raises:
        TypeError: the problem is not linear.

    Reference: derivations 3.5; Sec. 5 and Fig. 4 of the paper.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=60)
    >>> floor(problem, "lora-one", rank=2)
    tensor([0.], dtype=torch.float64)
    """
    checks.linear(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    start = chosen.init(problem, rank, trial_seeds(problem, seeds))
    if chosen.parametrisation.is_pair:
        offset = problem if start.offset is None else problem.with_offset(start.offset)
        return pair_floor(offset, rank=rank)
    if chosen.facts.ends_with is not None:
        return pair_floor(problem, rank=chosen.facts.ends_with(rank))
    zero = problem.like.new_zeros(problem.batch_shape)
    constant = zero if problem.constant is None else problem.constant
    if start.frozen:
        return _core_floor(problem, start.frozen[0], start.frozen[1]) + constant
    return zero + constant


def pair_floor(problem: LinearProblem, *, rank: int) -> Tensor:
    """½ Σ_{i>r} σ_i²(Σ̂^{1/2}T) for the problem's own target T = Δ + offset, shape (...).

    With label noise Σ̂^{1/2}T is Ỹ = CT + Z̃, and the constant c is added.
    """
    checks.linear(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    T = problem.target
    if problem.noise is not None:
        left = 0.5 * (torch.linalg.svdvals(problem.answer)[..., rank:] ** 2).sum(-1)
        return left if problem.constant is None else left + problem.constant
    if min(T.rank, problem.d, problem.k) <= rank:
        return problem.like.new_zeros(problem.batch_shape)
    # T = (L Rᵀ) Qᵀ with Q orthonormal, so Σ̂^{1/2}T has the singular values of a thin matrix.
    R = torch.linalg.qr(T.B.mT, mode="r").R
    thin = problem.covariance.half(T.A @ R.mT)
    values = torch.linalg.svdvals(torch.linalg.qr(thin, mode="r").R)
    rounding = max(problem.d, problem.k) * linalg.eps(thin) * values[..., :1]
    return 0.5 * (torch.where(values > rounding, values, 0.0)[..., rank:] ** 2).sum(-1)


def target_rank(problem: LinearProblem) -> int:
    """The numerical rank of T = Δ + offset, the largest in the batch."""
    T = problem.target
    RA, RB = (torch.linalg.qr(part, mode="r").R for part in (T.A, T.B.mT))
    S = torch.linalg.svdvals(RA @ RB.mT)
    return int((S > max(problem.d, problem.k) * linalg.eps(S) * S[..., :1]).sum(-1).max())


def pair_solution(problem: LinearProblem, *, rank: int) -> Factors:
    """The balanced factors (AᵀA = BBᵀ) of the best fit of rank r to T = Δ + offset.

    That is T V_r V_rᵀ, with V_r the leading right singular vectors of Σ̂^{1/2}T; T itself where its
    rank is at most r, with as many columns.

    Returns:
        A (..., d, p), B (..., p, k) with p = min(r, number of columns of T's factors).
    """
    checks.linear(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    problem = noiseless(problem)
    T = problem.target
    p = min(rank, T.rank)
    found = T
    if T.rank > rank:
        Q, R = torch.linalg.qr(T.B.mT)
        thin = problem.covariance.half(T.A @ R.mT)
        V = Q @ torch.linalg.svd(thin, full_matrices=False).Vh.mT[..., :rank]
        found = Factors(T.A @ (T.B @ V), V.mT)
    U, S, V = linalg.truncated_svd(found, p)
    root = S.sqrt()
    return Factors(U * root[..., None, :], root[..., None] * V.mT)


def _core_floor(problem: LinearProblem, A: Tensor, B: Tensor) -> Tensor:
    """min over R of ½‖C A R B − Ỹ‖_F², Ỹ = CΔ + Z̃: what lies off row(B), and off col(Σ̂^{1/2}A)."""
    V = torch.linalg.qr(B.mT).Q
    # Σ̂^{1/2}A has rank below r where N < r: directions that are rounding span nothing.
    U, S, _ = torch.linalg.svd(problem.covariance.half(A), full_matrices=False)
    kept = S > max(problem.d, problem.k) * linalg.eps(S) * S[..., :1]
    P = torch.where(kept[..., None, :], U, 0.0)
    L, R = problem.covariance.half(problem.shift.A), problem.shift.B
    if problem.noise is not None:
        L, R = problem.answer, torch.eye(problem.k).to(L)
    inside = R @ V
    off_rows = L @ torch.linalg.qr((R - inside @ V.mT).mT, mode="r").R.mT
    off_columns = linalg.residual(P, L @ inside)
    return 0.5 * ((off_rows**2).sum((-2, -1)) + (off_columns**2).sum((-2, -1)))
