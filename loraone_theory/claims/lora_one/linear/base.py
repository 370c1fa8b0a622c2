"""What the claims on local rates share: sizes, and the extreme modes at the balanced solution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.predict import RuleName
from loraone_theory.problems.linear.problem import LinearProblem

D, K, TRUE_RANK = 40, 30, 3
EPS = float(np.finfo(np.float64).eps)
# Relative size of the displacement from the solution: second-order terms are of this size, and
# rounding of E of size eps over it.
NEAR = 1e-7


def slow_mode(problem: LinearProblem, rule: RuleName, fastest: bool) -> tuple[Tensor, ...]:
    """The balanced solution A, B and E = v wᵀ (unit norm) on an extreme mode of the contraction.

    On w_j, eigenvector of BᵀB with eigenvalue β_j, the residual's column v obeys
    v⁺ = v − η(β_jΣ̂ + AAᵀΣ̂)v; preconditioned: β = 1 and P_A in place of AAᵀ.
    """
    U, S, V = linalg.truncated_svd(problem.shift, TRUE_RANK)
    A, B = U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT
    Sigma = problem.covariance.apply(torch.eye(problem.d, dtype=torch.float64))
    column = 0 if fastest else TRUE_RANK - 1
    beta = torch.ones_like(S[:, 0]) if rule == "preconditioned" else S[:, column]
    left = U @ U.mT if rule == "preconditioned" else A @ A.mT
    operator = (beta[:, None, None] * torch.eye(problem.d) + left) @ Sigma
    values, vectors = torch.linalg.eig(operator)
    pick = (values.real.argmax(-1) if fastest else values.real.argmin(-1))[:, None, None]
    v = torch.take_along_dim(vectors.real, pick, -1)
    return A, B, v / torch.linalg.vector_norm(v, dim=-2, keepdim=True), V[..., [column]]
