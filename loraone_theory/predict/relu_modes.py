"""Local rates of the ReLU model on N samples: linear in E near a solution, with fixed masks."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.predict.modes import Curvature, mode_extremes
from loraone_theory.predict.stationary import refuse_moving, refuse_saddle
from loraone_theory.predict.tangent_map import TangentMap, tiny
from loraone_theory.problems.relu.problem import ReLUProblem


def relu_extremes(problem: ReLUProblem, at: Factors, tangent: TangentMap) -> Tensor:
    """`mode_extremes` with J ↦ [Σ̂_mE_m]_m, Σ̂_m = (1/N)Σ_i 1{w'_m·x_i > 0}x_ix_iᵀ, shape (..., 3).

    Exact as long as no mask changes, which near a solution none does.
    """
    X, N = problem.inputs, problem.samples
    frozen = problem.population.frozen
    pre = X @ (frozen + at.dense())
    mask = (pre > 0).to(pre)
    M = X.mT @ ((pre.relu() - problem.labels) * mask) / N
    refuse_moving(
        Factors(M @ at.B.mT, at.A.mT @ M), at, torch.linalg.matrix_norm(problem.shift.dense())
    )
    scale = torch.linalg.matrix_norm(at.dense())
    interpolates = bool((torch.linalg.matrix_norm(M) <= tiny(M) * scale).all())
    refuse_saddle(interpolates, tangent)

    def gauss(pair: Factors, change: Factors) -> Factors:
        E = change.A @ pair.B + pair.A @ change.B
        K = X.mT @ ((X @ E) * mask) / N
        return Factors(K @ pair.B.mT, pair.A.mT @ K)

    def bend(change: Factors) -> Factors:
        return Factors(M @ change.B.mT, change.A.mT @ M)

    width = N * problem.k
    return mode_extremes(tangent, Curvature(gauss, None if interpolates else bend, width))


def balanced(shift: Factors) -> Factors:
    """A = US^{1/2}, B = S^{1/2}Vᵀ of Δ."""
    U, S, V = linalg.truncated_svd(shift, shift.rank)
    root = S.sqrt()
    return Factors(U * root[..., None, :], root[..., None] * V.mT)
