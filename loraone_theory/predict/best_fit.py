"""The least loss of noisy measurements near the true shift, by Gauss–Newton steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.iterative import conjugate_gradients
from loraone_theory.core.names import MethodName
from loraone_theory.methods import Method
from loraone_theory.predict.exact import fits_exactly
from loraone_theory.problems.sensing.problem import SensingProblem

STEPS = 100  # of Gauss–Newton: contracts by about the noise's edge over λ*_r in each
PRODUCTS = 40  # of conjugate gradients in each of them
ENTRIES = 10_000  # d·k up to which full matrices are fitted


@dataclass(frozen=True, eq=False)
class Fit:
    """A minimiser of the loss among matrices of rank r.

    Args:
        at: balanced factors of it, batch (...).
        loss: (...), NaN where none was found.
    """

    at: Factors
    loss: Tensor


def best_fit(problem: SensingProblem, rank: int) -> Fit:
    """The minimiser near the best rank-r part of the target T = Δ + offset.

    Each step solves least squares over the tangent space {XVᵀ + UYᵀ} at the present M and takes
    the best rank-r part of M + XVᵀ + UYᵀ. An instance is done once its loss changes by rounding.
    """
    target = problem.target
    if target is None:
        raise ValueError("a fit near the true shift needs it; pass shift=Δ when making the problem")
    M, loss = _cut(target, rank), None
    batch = problem.batch_shape
    found = torch.zeros(batch, dtype=torch.bool, device=problem.like.device)
    for _ in range(STEPS):
        before, loss = loss, problem.loss(M).expand(batch)
        if before is not None:
            found = (before - loss).abs() <= _rounding(problem, loss)
            if bool(found.all()):
                break
        M = _step(problem, M, rank)
    assert loss is not None  # STEPS > 0
    return Fit(M, torch.where(found, loss, math.nan))


def _rounding(problem: SensingProblem, loss: Tensor) -> Tensor:
    """What sums over m measurements lose of a loss."""
    share = problem.measurements * linalg.eps(loss)
    size = (problem.targets**2).sum(-1) / (2 * problem.measurements)
    return share * loss + share**2 * size


def _cut(M: Factors, rank: int) -> Factors:
    U, S, V = linalg.truncated_svd(M, rank)
    root = S.sqrt()
    return Factors(U * root[..., None, :], root[..., None] * V.mT)


def _step(problem: SensingProblem, M: Factors, rank: int) -> Factors:
    """One Gauss–Newton step, with (X, Y) stacked as (..., d + k, r), Y off row(M)."""
    operator, d, m = problem.operator, problem.d, problem.measurements
    U, S, V = linalg.truncated_svd(M, rank)
    frames = Factors(U, V.mT)

    def split(Z: Tensor) -> Factors:
        Y = Z[..., d:, :]
        return Factors(Z[..., :d, :], linalg.residual(V, Y).mT)

    def stacked(pulled: Factors) -> Tensor:
        return torch.cat([pulled.A, linalg.residual(V, pulled.B.mT)], dim=-2) / m

    def apply(Z: Tensor) -> Tensor:
        return stacked(operator.pull(operator.tangent(frames, split(Z)), frames))

    miss = problem.targets - operator.forward(M)
    G = stacked(operator.pull(miss, frames))
    X, Y = split(conjugate_gradients(apply, G, lambda Z: Z, PRODUCTS))
    # M + XVᵀ + UY = (US + X)Vᵀ + UY.
    return _cut(concatenate(Factors(U * S[..., None, :] + X, V.mT), Factors(U, Y)), rank)


def measured_floor(
    problem: SensingProblem, method: MethodName | str | Method, *, rank: int
) -> Tensor:
    """The least training loss that a method's parametrisation can reach, for any measurements.

    0 where the labels are those of a Δ that it can learn. With label noise: of a pair AB without
    an offset, r <= r*, the least loss near Δ, by Gauss–Newton steps from it; of full fine-tuning
    least squares over all matrices, up to ENTRIES entries.

    Args:
        problem: batch (...), with a known Δ.
        method: a name in `METHODS` or a Method.
        rank: r.

    Returns:
        (...); NaN where it is not known, or no minimiser was found.

    Raises:
        TypeError: another problem; predict.floor is for the linear one.
        ValueError: a rank that does not fit.

    Reference: derivations of sensing, section 3.

    >>> from loraone_theory.problems.sensing.sampling import sample_sensing
    >>> made = {"ensemble": "dense", "d": 5, "k": 4, "true_rank": 1, "measurements": 400}
    >>> noisy = sample_sensing(**made, noise_std=0.1)
    >>> floor = measured_floor(noisy, "lora", rank=1)
    >>> bool(abs(floor / (0.1**2 * (400 - 8) / 800) - 1) < 0.2)  # σ²(m − dof)/2m in the mean
    True
    """
    validate.instance("problem", problem, SensingProblem, "predict.floor is the linear one")
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    unknown = problem.like.new_full(problem.batch_shape, math.nan)
    if problem.shift is None or chosen.facts.ends_with is not None:
        return unknown
    form = chosen.parametrisation
    pair = form.is_pair and not chosen.offset
    if fits_exactly(problem) and (form.name == "full" or (pair and rank >= problem.shift.rank)):
        return torch.zeros_like(unknown)
    if form.name == "full":
        return _of_all_matrices(problem) if problem.d * problem.k <= ENTRIES else unknown
    if pair and rank <= problem.shift.rank:
        return best_fit(problem, rank).loss.expand(problem.batch_shape)
    return unknown


def _of_all_matrices(problem: SensingProblem) -> Tensor:
    """min over M of ‖𝒜(M) − y‖²/2m, with M from A, B = M, I."""
    operator, m = problem.operator, problem.measurements
    eye = torch.eye(problem.k).to(problem.like)

    def apply(M: Tensor) -> Tensor:
        return operator.adjoint(operator.forward(Factors(M, eye.expand(*M.shape[:-2], -1, -1)))) / m

    G = operator.adjoint(problem.targets) / m
    M = conjugate_gradients(apply, G, lambda Z: Z, 2 * problem.d * problem.k)
    fit = Factors(M, eye.expand(*M.shape[:-2], -1, -1))
    # Least squares are met where the gradient is rounding; else the iteration has not ended.
    left = linalg.relative_norm(apply(M) - G, G)
    done = left <= linalg.eps(M) ** 0.5
    return torch.where(done, problem.loss(fit), math.nan).expand(problem.batch_shape)
