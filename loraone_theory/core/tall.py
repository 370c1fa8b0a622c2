"""Tall matrices (..., d, r), r a few: one memory layout, and products that keep it.

The long axis d is contiguous. With rows of a few entries contiguous instead, BLAS and elementwise
kernels run several times slower.
"""

from __future__ import annotations

from torch import Tensor

# From this many rows an inner product is split in two.
HALVES = 8192


def layout(M: Tensor) -> Tensor:
    """The same matrices in this layout, which elementwise operations and `product` preserve."""
    return M.mT.contiguous().mT


def product(M: Tensor, N: Tensor) -> Tensor:
    """MN for a tall M (..., d, p) and a small N."""
    return (N.mT @ M.mT).mT


def difference(M: Tensor, T: Tensor) -> Tensor:
    """M − T, written into M wherever T broadcasts to M's shape; M must be a fresh tensor."""
    fits = M.ndim >= T.ndim and all(
        t in (1, m) for m, t in zip(M.shape[M.ndim - T.ndim :], T.shape, strict=True)
    )
    return M.sub_(T) if fits else M - T


def inner(M: Tensor, N: Tensor) -> Tensor:
    """MᵀN for tall M (..., d, p) and N (..., d, q); where d is large and even, in two halves.

    BLAS gives a product with a small result and a long inner dimension to one thread; the halves
    run side by side.
    """
    d = M.shape[-2]
    if d % 2 or d < HALVES:
        return M.mT @ N
    first, second = (X.mT.unflatten(-1, (2, d // 2)).transpose(-3, -2) for X in (M, N))
    return (first @ second.mT).sum(-3)
