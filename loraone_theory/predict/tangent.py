"""Local rates where the learned shift can equal Δ: the tangent operator column by column."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.covariance import Dense, Diagonal, Identity
from loraone_theory.problems.linear.problem import LinearProblem

RuleName = Literal["gd", "preconditioned"]

# Above this width extreme eigenvalues are found by Lanczos iteration instead of LAPACK.
DENSE_WIDTH = 600


def tangent_extremes(
    problem: LinearProblem, rule: RuleName = "gd", *, solution: Factors | None = None
) -> Tensor:
    """Smallest and largest eigenvalue of the operator by which the residual contracts near AB = Δ.

    GD: E ↦ Σ̂E BᵀB + AAᵀΣ̂E. Preconditioned GD: E ↦ Σ̂E P_B + P_AΣ̂E. On the row space of Δ,
    which runs from LoRA-init and Spectral-init never leave, the columns decouple in the eigenbasis
    of BᵀB: the spectrum is the union over its eigenvalues β of that of βΣ̂ + Σ̂^{1/2}AAᵀΣ̂^{1/2}
    (preconditioned: β = 1 and P_A for AAᵀ, so S does not enter and κ plays no part).

    Args:
        problem: batch (...), solved at rank r = r*.
        rule: "gd" or "preconditioned".
        solution: A (..., d, r*), B (..., r*, k) with AB = Δ; default the balanced one,
            A = US^{1/2}, B = S^{1/2}Vᵀ.

    Returns:
        (..., 2), ascending.

    Reference: derivations 3.7; App. C.2, C.3.
    """
    validate.choice("rule", rule, ("gd", "preconditioned"))
    if solution is None:
        U, S, V = linalg.truncated_svd(problem.shift, problem.true_rank)
        solution = Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)
    if solution.rank != problem.true_rank:
        raise ValueError(
            "local rates are those of an isolated solution: its rank must equal true_rank; "
            f"got rank={solution.rank} with true_rank={problem.true_rank}"
        )
    if rule == "preconditioned":
        A = torch.linalg.qr(solution.A).Q
        beta = torch.ones_like(solution.B[..., 0])
    else:
        A, beta = solution.A, torch.linalg.svdvals(solution.B) ** 2
    batch = torch.broadcast_shapes(problem.batch_shape, A.shape[:-2], beta.shape[:-1])
    ends = [
        _operator_extremes(problem, beta[..., i], A, batch)
        for i in ((0,) if rule == "preconditioned" else (0, -1))
    ]
    both = torch.cat(ends, dim=-1)
    return torch.stack([both.amin(-1), both.amax(-1)], dim=-1)


def _operator_extremes(
    problem: LinearProblem, beta: Tensor, A: Tensor, batch: torch.Size
) -> Tensor:
    """Extreme eigenvalues of βΣ̂ + Σ̂^{1/2}AAᵀΣ̂^{1/2}, shape (*batch, 2)."""
    covariance, d = problem.covariance, problem.d
    if isinstance(covariance, Dense):
        values, Q = torch.linalg.eigh(covariance.matrix)
        covariance, A = Diagonal(values), Q.mT @ A
    K = covariance.half(A)
    if isinstance(covariance, Identity):
        values = torch.linalg.svdvals(A) ** 2
        low = values[..., -1] if d == A.shape[-1] else torch.zeros_like(values[..., -1])
        return torch.stack([beta + low, beta + values[..., 0]], dim=-1).expand(*batch, 2)
    if d <= DENSE_WIDTH:
        eye = torch.eye(d, dtype=A.dtype, device=A.device)
        matrix = beta[..., None, None] * covariance.half(covariance.half_transposed(eye))
        return torch.linalg.eigvalsh(matrix + K @ K.mT)[..., [0, -1]].expand(*batch, 2)
    if math.prod(batch) != 1:
        raise ValueError(
            f"above d = {DENSE_WIDTH} local rates are found one instance at a time; "
            f"got a batch {tuple(batch)} at d = {d}"
        )
    return _lanczos(covariance, beta.reshape(()), K.reshape(d, -1)).expand(*batch, 2)


def _lanczos(covariance: object, beta: Tensor, K: Tensor) -> Tensor:
    d = K.shape[0]

    def product(x: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(np.ascontiguousarray(x)).to(K).reshape(d, 1)
        smooth = covariance.half(covariance.half_transposed(v))  # type: ignore[attr-defined]
        return (beta * smooth.reshape(d, 1) + K @ (K.mT @ v)).reshape(-1).cpu().numpy()

    operator = scipy.sparse.linalg.LinearOperator((d, d), matvec=product, dtype=np.float64)
    ends = [
        scipy.sparse.linalg.eigsh(
            operator, k=1, which=which, return_eigenvectors=False, tol=1e-8, maxiter=20 * d
        )[0]
        for which in ("SA", "LA")
    ]
    return torch.tensor(ends).to(K)


def local_rate(
    problem: LinearProblem,
    rule: RuleName = "gd",
    *,
    learning_rate: float,
    solution: Factors | None = None,
) -> Tensor:
    """The factor by which ‖E‖_F contracts per step near AB = Δ, max |1 − ημ|, shape (...).

    A value >= 1 means that the solution is unstable. Args as for `tangent_extremes`.
    Reference: derivations 3.7.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=30, k=20, true_rank=2, samples=10**5)
    >>> bool((local_rate(problem, "preconditioned", learning_rate=0.5) - 0.5).abs() < 0.05)
    True
    """
    mu = tangent_extremes(problem, rule, solution=solution)
    return (1 - learning_rate * mu).abs().amax(-1)


def largest_stable_step(problem: LinearProblem, rule: RuleName = "gd") -> Tensor:
    """2/μ_max: above it the balanced solution is unstable, shape (...)."""
    return 2 / tangent_extremes(problem, rule)[..., 1]


def best_step(problem: LinearProblem, rule: RuleName = "gd") -> Tensor:
    """2/(μ_min + μ_max), the step with the fastest local rate, shape (...)."""
    return 2 / tangent_extremes(problem, rule).sum(-1)
