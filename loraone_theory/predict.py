"""Closed forms of the linear model: floors, the plateau, linearised dynamics, local rates.

Nothing here looks at a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory import linalg, methods, validate
from loraone_theory.factors import Factors
from loraone_theory.methods import Method
from loraone_theory.problems.covariance import Dense, Diagonal, Identity
from loraone_theory.problems.linear import LinearProblem

RuleName = Literal["gd", "preconditioned"]

# Above this width extreme eigenvalues are found by Lanczos iteration instead of LAPACK.
DENSE_WIDTH = 600


def floor(
    problem: LinearProblem,
    method: str | Method,
    *,
    rank: int,
    seeds: int | Sequence[int] = (0,),
) -> Tensor:
    """The least training loss that a method's parametrisation can reach.

    A pair AB against the target T = Δ + offset: ½ Σ_{i>r} σ_i²(Σ̂^{1/2}T) (Eckart–Young in the
    Σ̂ metric). A R B with A, B frozen: the least-squares value over R. Full fine-tuning: 0.

    Args:
        problem: batch (...).
        method: a name in `METHODS` or a Method; its offset or frozen factors come from its own
            initialisation with these `seeds`.
        rank: r.
        seeds: as for `simulate`.

    Returns:
        Losses (...), exactly 0 where the rank of T is at most r.

    Reference: derivations 3.5; Sec. 5 and Fig. 4 of the paper.

    >>> from loraone_theory.problems.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=60)
    >>> floor(problem, "lora-one", rank=2)
    tensor([0.], dtype=torch.float64)
    """
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    start = chosen.init(problem, rank, validate.seeds(seeds))
    if chosen.parametrisation.is_pair:
        offset = problem if start.offset is None else problem.with_offset(start.offset)
        return pair_floor(offset, rank=rank)
    if start.frozen:
        return _core_floor(problem, start.frozen[0], start.frozen[1])
    return problem.like.new_zeros(problem.batch_shape)


def pair_floor(problem: LinearProblem, *, rank: int) -> Tensor:
    """½ Σ_{i>r} σ_i²(Σ̂^{1/2}T) for the problem's own target T = Δ + offset, shape (...)."""
    T = problem.target
    if T.rank <= rank:
        return problem.like.new_zeros(problem.batch_shape)
    # T = (L Rᵀ) Qᵀ with Q orthonormal, so Σ̂^{1/2}T has the singular values of a thin matrix.
    R = torch.linalg.qr(T.B.mT, mode="r").R
    thin = problem.covariance.half(T.A @ R.mT)
    values = torch.linalg.svdvals(torch.linalg.qr(thin, mode="r").R)
    return 0.5 * (values[..., rank:] ** 2).sum(-1)


def _core_floor(problem: LinearProblem, A: Tensor, B: Tensor) -> Tensor:
    """min over R of ½‖Σ̂^{1/2}(A R B − Δ)‖_F²: what lies off row(B), and off col(Σ̂^{1/2}A)."""
    V = torch.linalg.qr(B.mT).Q
    P = torch.linalg.qr(problem.covariance.half(A)).Q
    L, R = problem.covariance.half(problem.shift.A), problem.shift.B
    inside = R @ V
    off_rows = L @ (R - inside @ V.mT)
    off_columns = linalg.residual(P, L @ inside)
    return 0.5 * ((off_rows**2).sum((-2, -1)) + (off_columns**2).sum((-2, -1)))


def plateau(problem: LinearProblem) -> Tensor:
    """Where the alignment of an over-ranked run from small LoRA-init settles.

    A_t first aligns with U(G) = span(Σ̂U), then drifts to U(Δ); the alignment ends at
    sin ∠_max(U(Δ), Σ̂U(Δ)), shape (...). Reference: derivations 3.6.
    """
    first, _ = linalg.left_frame(problem.shift.A, problem.true_rank)
    second, _ = linalg.left_frame(problem.covariance.apply(problem.shift.A), problem.true_rank)
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
    U, S, V = linalg.truncated_svd(problem.one_step_gradient(), problem.true_rank)
    A, Bt = initial.A, initial.B.mT
    a, b = U.mT @ A, V.mT @ Bt
    t = torch.as_tensor(np.asarray(steps), dtype=S.dtype, device=S.device)
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
    growth = learning_rate * singular_value
    down = torch.log1p(growth) if isinstance(growth, Tensor) else math.log1p(growth)
    return math.log(math.sqrt(d) / theta) / down


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

    >>> from loraone_theory.problems.sampling import sample_linear
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
