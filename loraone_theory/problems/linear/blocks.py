"""Gradients of a large linear problem in blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import tall
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.covariance import Covariance


def gradients_by_rows(covariance: Covariance, T: Tensor, shift: Factors, height: int) -> Factors:
    """(Σ̂EBᵀ, AᵀΣ̂E) with E = AB − T, `height` rows at a time, so that E stays in cache.

    Args:
        covariance: Σ̂, whose rows reach a few neighbours only.
        T: (..., d, k).
        shift: A (..., d, r), B (..., r, k).
        height: rows of a block.
    """
    A, B = shift
    reach, d = covariance.reach or 0, A.shape[-2]
    batch = broadcast(shift.shape[:-2], T.shape[:-2], covariance.batch_shape)
    grad_A = A.new_empty(*batch, A.shape[-1], d)
    grad_B = B.new_zeros(*batch, *B.shape[-2:])
    for start in range(0, d, height):
        stop = min(start + height, d)
        low, high = max(start - reach, 0), min(stop + reach, d)
        E = tall.product(A[..., low:high, :], B)
        E = tall.difference(E, T[..., low:high, :])
        M = covariance.rows(low, high).apply(E)[..., start - low : stop - low, :]
        torch.matmul(B, M.mT, out=grad_A[..., start:stop])
        grad_B += tall.inner(A[..., start:stop, :], M)
    return Factors(grad_A.mT, grad_B)
