"""What several statements share: best approximations, tangent parts, two-sample comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import scipy  # loads its parts when they are first used
import torch
from torch import Tensor

from loraone_theory.claims.base import Evidence
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.covariance import Tridiagonal
from loraone_theory.problems.linear.problem import LinearProblem

EPS = float(np.finfo(np.float64).eps)
# Probability of a false alarm of one comparison: 2 exp(−n D²) <= LEVEL for two samples of n.
LEVEL = 1e-6
LAW = (
    "each Kolmogorov–Smirnov distance against the value that equal laws exceed with probability "
    f"{LEVEL:g} (Dvoretzky–Kiefer–Wolfowitz)"
)
NO_PROOF = "A test of equal laws cannot prove them equal; the derivation does."


def same_law(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Evidence:
    """Kolmogorov–Smirnov distances of statistics by name, one value per draw each."""
    tests = {
        name: scipy.stats.ks_2samp(np.asarray(first[name]), np.asarray(second[name]))
        for name in first
    }
    distances = np.array([test.statistic for test in tests.values()])
    count = len(next(iter(first.values())))
    numbers = {f"KS p-value, {name}": float(test.pvalue) for name, test in tests.items()}
    return Evidence(distances, math.sqrt(math.log(2 / LEVEL) / count), numbers=numbers)


def ratios(measured: Tensor, promised: Tensor | float, allowance: float) -> Evidence:
    """Measured over promised values, one per draw, whose mean shall be 1."""
    share = measured / promised
    return Evidence(
        share.cpu().numpy(),
        1.0,
        tolerance=allowance,
        numbers={"mean measured / promised": float(share.mean())},
    )


def best(M: Tensor, rank: int) -> Tensor:
    """The nearest matrix of rank r."""
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U[..., :rank] * S[..., None, :rank]) @ Vh[..., :rank, :]


def half_square(M: Tensor) -> Tensor:
    """½‖M‖_F²."""
    return 0.5 * (M * M).sum((-2, -1))


def least_loss(problem: LinearProblem, rank: int) -> Tensor:
    """Risk where the loss of rank r is least, C⁻¹ times the best rank-r part of Ỹ; C bidiagonal."""
    assert isinstance(problem.covariance, Tridiagonal)
    C = torch.diag_embed(problem.covariance.c) + torch.diag_embed(problem.covariance.f, 1)
    fit = torch.linalg.solve(C, best(problem.answer, rank))
    return half_square(fit - problem.shift.dense())


def tangent_part(shift: Factors, M: Tensor) -> Tensor:
    """P_T M = P_U M + M P_V − P_U M P_V at Δ."""
    U, _, V = linalg.truncated_svd(shift, shift.rank)
    left = U @ (U.mT @ M)
    return left + ((M - left) @ V) @ V.mT


def balanced(shift: Factors) -> Factors:
    """AB = Δ with AᵀA = BBᵀ."""
    U, S, V = linalg.truncated_svd(shift, shift.rank)
    return Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)
