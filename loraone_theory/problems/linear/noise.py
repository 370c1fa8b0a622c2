"""Labels that X(W + Δ) does not explain, in the few coordinates that the dynamics see.

With X = PC√N (P orthonormal columns, Σ̂ = CᵀC) and Y = X(W + Δ) + Z, the loss is
‖CE − Z̃‖²/2 + c with Z̃ = PᵀZ/√N and c = ‖(I − PPᵀ)Z‖²/2N: nothing else of Z enters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.problems.linear.covariance import Dense


def project(X: Tensor, matrix: Tensor, Z: Tensor) -> tuple[Dense, Tensor, Tensor]:
    """(Σ̂ with its factor C, Z̃ (..., h, k), c (...)), h = min(N, d).

    C is the triangular factor of X/√N, or X/√N itself where N < d.

    Args:
        X: (..., N, d).
        matrix: Σ̂ (..., d, d).
        Z: (..., N, k).

    >>> X, Z = torch.eye(3).double()[:, :2], torch.tensor([[1.0], [2.0], [3.0]]).double()
    >>> _, noise, constant = project(X, X.mT @ X / 3, Z)
    >>> round(float((noise**2).sum()) * 3, 12), round(float(constant) * 6, 12)
    (5.0, 9.0)
    """
    N, d = X.shape[-2:]
    root = N**0.5
    if d > N:
        return Dense(matrix, X / root), Z / root, Z.new_zeros(Z.shape[:-2])
    P, C = torch.linalg.qr(X / root)
    inside = P.mT @ Z
    rest = Z - P @ inside
    return Dense(matrix, C), inside / root, (rest * rest).sum((-2, -1)) / (2 * N)
