"""The part of a linear problem that its inputs see: N < d leaves directions without samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.covariance import Dense, Diagonal, Rows
from loraone_theory.problems.linear.problem import LinearProblem


@dataclass(frozen=True, eq=False)
class Seen:
    """The problem on the row space of X.

    Args:
        problem: with a diagonal covariance of the positive eigenvalues of Σ̂, or the given one.
        basis: Q (..., d, d') with orthonormal columns that span it; None where all is seen.
    """

    problem: LinearProblem
    basis: Tensor | None

    def lower(self, A: Tensor) -> Tensor:
        """QᵀA."""
        return A if self.basis is None else self.basis.mT @ A

    def unseen(self, A: Tensor) -> bool:
        """Whether columns of A have a part off the row space of X, beyond rounding."""
        if self.basis is None:
            return False
        outside = linalg.relative_norm(linalg.residual(self.basis, A), A)
        return bool((outside > linalg.eps(A) ** 0.5).any())


def seen(problem: LinearProblem) -> Seen:
    """The dynamics of AB on the row space of X, which is all that the loss depends on.

    With Σ̂ = QΛQᵀ, Λ > 0 (d'×d'), ∇_A = QΛQᵀE Bᵀ and ∇_B = AᵀQΛQᵀE: (QᵀA, B) obeys the same rules
    with covariance Λ and shift QᵀΔ, and (I − QQᵀ)A never moves. Instances share one width, the
    largest rank of Σ̂ among them.
    """
    covariance = problem.covariance
    if isinstance(covariance, Dense):
        values, Q = torch.linalg.eigh(covariance.matrix)
    elif isinstance(covariance, Rows):
        _, S, Vh = torch.linalg.svd(covariance.inputs, full_matrices=False)
        values, Q = (S**2 / covariance.height).flip(-1), Vh.mT.flip(-1)
    elif isinstance(covariance, Diagonal):
        values, order = covariance.values.sort(dim=-1)
        Q = torch.eye(problem.d).to(values)[order].mT
    else:
        ends = covariance.spectrum("extremes")
        if bool((ends[..., 0] > problem.d * linalg.eps(ends) * ends[..., 1]).all()):
            return Seen(problem, None)
        values, Q = torch.linalg.eigh(covariance.apply(torch.eye(problem.d).to(problem.like)))
    rounding = problem.d * linalg.eps(values) * values[..., -1:]
    width = int((values > rounding).sum(-1).max())
    if width == problem.d:
        return Seen(problem, None)
    values, Q = values[..., -width:].clamp_min(0), Q[..., -width:]
    shift = Factors(Q.mT @ problem.shift.A, problem.shift.B)
    if shift.rank > width:
        U, S, V = linalg.truncated_svd(shift, width)
        shift = Factors(U * S[..., None, :], V.mT)
    offset = problem.offset
    small = replace(
        problem,
        covariance=Diagonal(values),
        shift=shift,
        pretrained=None,
        offset=None if offset is None else Factors(Q.mT @ offset.A, offset.B),
    )
    return Seen(small, Q)
