"""A matrix known by its products alone, and its leading singular triplets by block Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Columns that a block carries beyond those asked for: they speed up the last of these.
EXTRA = 4
# Triplets are accepted once ‖MᵀU − VS‖ is below this times eps·√(d + k)·σ₁, the rounding error.
ACCEPTED = 16


@dataclass(frozen=True, eq=False)
class Implicit:
    """A matrix M (..., d, k) that is never formed.

    Args:
        shape: (..., d, k).
        right: N (..., k, p) -> MN.
        left: N (..., d, p) -> MᵀN.
        like: a tensor that carries dtype and device.

    >>> M = torch.diag(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))
    >>> hidden = Implicit(M.shape, lambda N: M @ N, lambda N: M.mT @ N, M)
    >>> [round(x, 12) for x in hidden.leading(2)[1].tolist()]
    [3.0, 2.0]
    """

    shape: torch.Size
    right: Callable[[Tensor], Tensor]
    left: Callable[[Tensor], Tensor]
    like: Tensor

    def dense(self) -> Tensor:
        """M itself, (..., d, k)."""
        return self.right(torch.eye(self.shape[-1]).to(self.like))

    def leading(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """The top-`rank` triplets U (..., d, rank), S (..., rank) and V (..., k, rank).

        The Krylov space of MᵀM from one random block grows by a block at a time, orthogonalised
        twice against all before, until ‖MᵀU − VS‖ is rounding error or the space is all of R^k.
        Within it the triplets are those of the thin matrix MQ, so that small ones keep their
        absolute accuracy. The first block is a function of the shape alone.
        """
        d, k = self.shape[-2:]
        rounding = torch.finfo(self.like.dtype).eps * (d + k) ** 0.5
        width = min(rank + EXTRA, k)
        generator = torch.Generator().manual_seed(k)
        first = torch.randn(*self.shape[:-2], k, width, generator=generator, dtype=torch.float64)
        block = torch.linalg.qr(first.to(self.like)).Q
        Q, MQ = block, self.right(block)
        while True:
            U, S, Vh = torch.linalg.svd(MQ, full_matrices=False)
            U, S, V = U[..., :rank], S[..., :rank], Q @ Vh.mT[..., :rank]
            back = self.left(U)
            miss = torch.linalg.matrix_norm(back - V * S[..., None, :])
            small = ACCEPTED * rounding * S[..., 0]
            if Q.shape[-1] >= k or not bool((miss > small).any()):
                return U, S, V
            block = self._next(Q, MQ, block.shape[-1])
            Q = torch.cat([Q, block], dim=-1)
            MQ = torch.cat([MQ, self.right(block)], dim=-1)

    def _next(self, Q: Tensor, MQ: Tensor, width: int) -> Tensor:
        """MᵀMQ of the last block, orthogonal to everything before; random where that is zero."""
        width = min(width, Q.shape[-2] - Q.shape[-1])
        new = self.left(MQ[..., -width:])
        for _ in range(3):
            new = new - Q @ (Q.mT @ new)
            new = torch.linalg.qr(new).Q
        return new
