"""The randomised SVD of a large matrix, every product taken along the rows of its storage."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import tall


def svd_lowrank(
    M: Tensor, q: int, niter: int, rank: int, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The leading `rank` triplets that q probe directions and `niter` power iterations find.

    The method is that of `torch.svd_lowrank`, and so are the draws: the same up to rounding. BLAS
    is up to twice as fast with MᵀQ as rows, QᵀM, and LAPACK with a small triangle than with the
    wide QᵀM.

    Args:
        M: (..., d, k), either of its last axes contiguous.
        q: probes, at most min(d, k).
        niter: how often MMᵀ is applied to them.
        rank: at most q.
        draws: where the probes come from, on M's device.

    Returns:
        U (..., d, rank), S (..., rank) descending, V (..., k, rank).

    Reference: Halko, Martinsson and Tropp, arXiv 0909.4061, Algorithms 4.4 and 5.1.
    """
    if M.shape[-2] < M.shape[-1]:
        V, S, U = svd_lowrank(M.mT, q, niter, rank, draws)
        return U, S, V
    probes = torch.randn(M.shape[-1], q, generator=draws, dtype=M.dtype, device=M.device)
    P = probes
    for _ in range(niter):
        # Orthonormal on the short side only: MᵀMP spans what MᵀQ does for a basis Q of MP.
        P = torch.linalg.qr(_transposed_times(M, _of_order_one(_times(M, P)))).Q
    Q = torch.linalg.qr(_times(M, P)).Q
    # MᵀQ = PR and R = VSUᵀ, so that QQᵀM = (QU) S (PV)ᵀ.
    P, R = torch.linalg.qr(_transposed_times(M, Q))
    V, S, Uh = torch.linalg.svd(R)
    return (
        tall.product(Q, Uh.mT[..., :rank]),
        S[..., :rank],
        tall.product(P, V[..., :rank]),
    )


def _of_order_one(X: Tensor) -> Tensor:
    """X over its largest entry, so that σ² neither over- nor underflows where σ does not."""
    largest = X.abs().amax((-2, -1), keepdim=True)
    return X / torch.where(largest > 0, largest, 1.0)


def _times(M: Tensor, X: Tensor) -> Tensor:
    """MX for a few columns X."""
    return M @ X if M.stride(-1) == 1 else (X.mT @ M.mT).mT


def _transposed_times(M: Tensor, Q: Tensor) -> Tensor:
    """MᵀQ for a few columns Q."""
    return (Q.mT @ M).mT if M.stride(-1) == 1 else M.mT @ Q
