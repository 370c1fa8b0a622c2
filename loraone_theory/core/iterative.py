"""Linear systems known by their products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core.linalg import eps

Apply = Callable[[Tensor], Tensor]


def conjugate_gradients(apply: Apply, G: Tensor, precondition: Apply, iterations: int) -> Tensor:
    """X (..., n, p) with HX = G, H positive semidefinite, in the range of the preconditioner.

    Every run of the batch stops once ‖G − HX‖ in the preconditioner's metric is rounding of ‖G‖,
    all of them after `iterations`.

    Args:
        apply: X -> HX.
        G: (..., n, p).
        precondition: G -> P G with PH near the identity, P positive semidefinite.
        iterations: the most.

    >>> h = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    >>> conjugate_gradients(lambda X: h * X, torch.ones_like(h), lambda G: G, 3).mT
    tensor([[1.0000, 0.5000, 0.2500]], dtype=torch.float64)
    """
    X, miss = torch.zeros_like(G), G
    Z = precondition(miss)
    P, size = Z, _inner(miss, Z)
    rounding = (G.shape[-2] * G.shape[-1]) ** 0.5 * eps(G)
    least = rounding**2 * size
    for _ in range(iterations):
        active = size > least
        if not bool(active.any()):
            break
        HP = apply(P)
        bent = _inner(P, HP)
        length = torch.where(active & (bent > 0), size / torch.where(bent > 0, bent, 1), 0)
        X, miss = X + length * P, miss - length * HP
        Z = precondition(miss)
        before, size = size, _inner(miss, Z)
        P = Z + torch.where(active, size / torch.where(active, before, 1), 0) * P
        size = torch.where(length > 0, size, 0)
    return X


def _inner(M: Tensor, N: Tensor) -> Tensor:
    return (M * N).sum((-2, -1), keepdim=True)
