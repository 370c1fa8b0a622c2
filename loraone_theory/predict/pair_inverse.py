"""The inverse of the local dynamics of a pair in the linear model, residual included.

With K = LR, C = ĀᵀΣ̂Ā, G = B̄B̄ᵀ and M the full gradient at a stationary pair (MB̄ᵀ = 0, ĀᵀM = 0), the
operator is

    X ↦ Σ̂XG + Σ̂ĀYB̄ᵀ + MYᵀK,    Y ↦ ĀᵀΣ̂XB̄ + CY + KXᵀM.

Eliminating Y leaves (Σ̂ − Σ̂ĀC⁻¹ĀᵀΣ̂)XG − MMᵀX·KᵀC⁻¹K on X, whose kernel is col(Ā), the gauge. Off
it both sides are made diagonal at once: a solve takes a few products with d×d and r×r matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.predict.tangent_map import TangentMap

Inverse = Callable[[Factors], Factors]


def pair_inverse(Sigma: Tensor, tangent: TangentMap, M: Tensor) -> Inverse | None:
    """The pseudo-inverse, (X', Y') -> (X, Y); None where more than the gauge is at rest.

    It is symmetric to rounding, as Lanczos iteration needs: what goes in loses its part along the
    gauge too, which the iteration would let grow.

    Args:
        Sigma: Σ̂ (..., d, d).
        tangent: Ā, B̄ and the weights R, L, batch (...).
        M: (..., d, k), 0 where the pair meets the target.
    """
    A, B = tangent.A, tangent.B
    d, r = A.shape[-2:]
    if d <= r or bool((tangent.spared != 0).any()):
        return None
    K = tangent.left @ tangent.right
    seen = Sigma @ A
    C, of_C = _root(A.mT @ seen)
    G, of_G = _root(B @ B.mT)
    off = torch.linalg.qr(A, mode="complete").Q[..., r:]
    if not (of_C and of_G):
        return None
    half = torch.linalg.solve_triangular(C, seen.mT, upper=False)  # C^{-1/2}ĀᵀΣ̂
    inside = half @ off
    rest, of_rest = _root(off.mT @ Sigma @ off - inside.mT @ inside)
    if not of_rest:
        return None
    bend = off.mT @ M
    left, q = _diagonal(rest, bend @ bend.mT)
    right, p = _diagonal(G, K.mT @ torch.cholesky_solve(K, C))
    left = off @ left
    share = 1 - q[..., :, None] * p[..., None, :]
    if not bool((share > d * linalg.eps(M)).all()):  # a saddle, or flat
        return None

    gauge, sides = _gauge(tangent), [d * r, r * B.shape[-1]]

    def off_gauge(pair: Factors) -> Factors:
        flat = torch.cat([part.flatten(-2) for part in pair], dim=-1)[..., None]
        kept = (flat - gauge @ (gauge.mT @ flat))[..., 0].split(sides, dim=-1)
        return Factors(*(part.reshape(M.shape) for part, M in zip(kept, pair, strict=True)))

    def solve(given: Factors) -> Factors:
        X, Y = off_gauge(given)
        Y = torch.cholesky_solve(Y, C)
        X = X - (seen @ Y) @ B.mT - M @ (Y.mT @ K)
        X = left @ ((left.mT @ X @ right) / share) @ right.mT
        pulled = (seen.mT @ X) @ B + K @ (X.mT @ M)
        return off_gauge(Factors(X, Y - torch.cholesky_solve(pulled, C)))

    return solve


def _gauge(tangent: TangentMap) -> Tensor:
    """An orthonormal basis of (ĀS, −SB̄), (..., size, r²)."""
    A, B = tangent.A, tangent.B
    r = A.shape[-1]
    S = torch.eye(r * r).to(A).reshape(r * r, *[1] * (A.ndim - 2), r, r)
    pair = (A @ S).flatten(-2), (-S @ B).flatten(-2)
    return torch.linalg.qr(torch.cat(pair, dim=-1).movedim(0, -1)).Q


def _root(S: Tensor) -> tuple[Tensor, bool]:
    """The lower triangular L of S = LLᵀ, and whether S is positive definite throughout."""
    L, info = torch.linalg.cholesky_ex((S + S.mT) / 2)
    return L, bool((info == 0).all())


def _diagonal(L: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """T and s with Tᵀ(LLᵀ)T = I and TᵀST = diag(s)."""
    inner = torch.linalg.solve_triangular(L, S, upper=False)
    inner = torch.linalg.solve_triangular(L, inner.mT, upper=False)
    s, W = torch.linalg.eigh((inner + inner.mT) / 2)
    return torch.linalg.solve_triangular(L.mT, W, upper=True), s
