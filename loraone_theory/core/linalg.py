"""Batched linear algebra on thin matrices: frames, angles, truncated SVD, symmetric inverses.

Nothing here forms a d×d matrix, and every function takes leading batch dimensions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core import eigen, elementwise, lowrank, powers, tall, validate
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors
from loraone_theory.core.implicit import Implicit


class SVD(NamedTuple):
    """A truncated singular value decomposition U diag(S) Vᵀ, S descending."""

    U: Tensor  # (..., d, p)
    S: Tensor  # (..., p)
    V: Tensor  # (..., k, p)


class SVDOptions(NamedTuple):
    """How to take the SVD of the one-step gradient.

    `exact` is LAPACK's; `lowrank` that of `torch.svd_lowrank`, with `q` probe directions and
    `niter` power iterations, from `seed`; q is clamped to min(d, k).
    """

    method: Literal["exact", "lowrank"] = "exact"
    q: int = 32
    niter: int = 4
    seed: int = 0


# A full decomposition, which needs no options.
EXACT = SVDOptions()

# From this many times as tall as wide, a frame is cheaper from M and its R factor than from Q.
TALL = 64

# Gap between the squares of singular values `rank` and `rank` + 1, relative to the largest square,
# from which the Gram matrix gives a frame to 100 eps; below it the R factor does.
GRAM_GAP = 1e-2


def eps(M: Tensor) -> float:
    """Machine epsilon of the dtype of `M`."""
    return torch.finfo(M.dtype).eps


def truncated_svd(M: Tensor | Factors | Implicit, rank: int, options: SVDOptions = EXACT) -> SVD:
    """The leading `rank` singular triplets of M (..., d, k).

    A product given as Factors is decomposed through two thin QR factorisations at O((d + k) r²),
    never formed; its triplets beyond the inner dimension have S = 0 and zero vectors. A matrix
    given by its products alone is decomposed by block Lanczos, to rounding.

    Raises:
        ValueError: unknown `options.method`.
    """
    _check(options)
    if options.method == "lowrank":
        return _lowrank_svd(M if isinstance(M, Tensor) else M.dense(), rank, options)
    if isinstance(M, Implicit):
        return SVD(*M.leading(rank))
    if isinstance(M, Tensor):
        U, S, Vh = torch.linalg.svd(M, full_matrices=False)
        return SVD(U[..., :rank], S[..., :rank], Vh.mT[..., :rank])
    QA, RA = torch.linalg.qr(M.A)
    QB, RB = torch.linalg.qr(M.B.mT)
    U, S, Vh = torch.linalg.svd(RA @ RB.mT, full_matrices=False)
    found = SVD(QA @ U, S, QB @ Vh.mT)
    missing = rank - S.shape[-1]
    if missing <= 0:
        return SVD(found.U[..., :rank], found.S[..., :rank], found.V[..., :rank])
    return SVD(*(torch.nn.functional.pad(part, (0, missing)) for part in found))


def _check(options: SVDOptions) -> None:
    validate.instance("svd", options, SVDOptions, "make it with lt.SVDOptions(...)")
    validate.choice("svd", options.method, ("exact", "lowrank"))
    for name, given, least in (
        ("q", options.q, 1),
        ("niter", options.niter, 0),
        ("seed", options.seed, 0),
    ):
        validate.integer(f"{name} of svd", given, least=least)


def _lowrank_svd(M: Tensor, rank: int, options: SVDOptions) -> SVD:
    q = min(max(options.q, rank), *M.shape[-2:])
    draws = torch.Generator(M.device).manual_seed(options.seed)
    return SVD(*lowrank.svd_lowrank(M, q, options.niter, min(rank, q), draws))


def left_frame(M: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The top-`rank` left singular subspace of a tall or square M (..., d, r).

    Returns:
        An orthonormal frame (..., d, rank), and a mask (...) that is False where the subspace is
        undefined to rounding: M is not finite, has rank below `rank` or too few columns, or its
        singular values `rank` and `rank` + 1 are equal.
    """
    d, r = M.shape[-2:]
    if rank > min(d, r):
        return M.new_zeros(*M.shape[:-1], rank), M.new_zeros(M.shape[:-2], dtype=torch.bool)
    if rank == r or d < 2 * r:
        return _frame_by_qr(M, rank)
    values, V = torch.linalg.eigh(_finite(M.mT @ M))
    top, low, below = values[..., -1], values[..., -rank], values[..., -rank - 1]
    # Eigenvectors of the Gram matrix are good to eps over this relative gap,
    clear = low - below > GRAM_GAP * top
    # where squares of entries far below the largest ones are normal numbers too.
    clear = clear & (top > torch.finfo(M.dtype).tiny / eps(M) ** 2)
    S = low.new_ones((*values.shape[:-1], rank))
    S = torch.where(clear[..., None], values[..., -rank:], S).sqrt().flip(-1)
    frame = tall.product(M, V[..., -rank:].flip(-1) / S[..., None, :])
    if bool(clear.all()):
        return frame, clear
    hard = ~clear
    exact, defined = _frame_by_qr(M[hard], rank)
    frame[hard] = exact
    clear = clear.clone()
    clear[hard] = defined
    return frame, clear


def _finite(M: Tensor) -> Tensor:
    """M, with zeros in place of matrices that are not finite, which LAPACK refuses."""
    finite = torch.isfinite(M).flatten(-2).all(-1)
    if bool(finite.all()):
        return M
    return torch.where(finite[..., None, None], M, torch.zeros_like(M))


def _frame_by_qr(M: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`left_frame` from the SVD of the R factor, whatever the spread of the singular values."""
    d, r = M.shape[-2:]
    finite = torch.isfinite(M).flatten(-2).all(-1)
    M = powers.to_one(M)
    slender = d > TALL * r
    # With as many columns as `rank` the span is Q's own: no rotation, no rounding from one.
    Q, R = torch.linalg.qr(M, mode="r" if slender else "reduced")
    U, S, Vh = torch.linalg.svd(R, full_matrices=False)
    rounding = max(d, r) * eps(M) * S[..., 0]
    below = S[..., rank] if rank < S.shape[-1] else torch.zeros_like(rounding)
    defined = finite & (S[..., rank - 1] - below > rounding)
    if slender:
        return _frame_of_rows(M, S[..., :rank], Vh[..., :rank, :], defined), defined
    return Q if min(d, r) == rank else Q @ U[..., :rank], defined


def _frame_of_rows(M: Tensor, S: Tensor, Vh: Tensor, defined: Tensor) -> Tensor:
    """MVS⁻¹ for the leading triplets of a tall M, at a fraction of the cost of forming Q.

    Its columns are orthonormal up to eps·σ₁/σ_rank; a Cholesky factor of their Gram matrix brings
    that to eps. Where the subspace is undefined the answer is arbitrary.
    """
    mask = defined[..., None, None]
    S = torch.where(defined[..., None], S, torch.ones_like(S))
    F = tall.product(M, Vh.mT / S[..., None, :])
    gram = torch.where(mask, F.mT @ F, torch.eye(S.shape[-1], dtype=S.dtype, device=S.device))
    L = torch.linalg.cholesky_ex(gram).L
    return tall.product(F, torch.linalg.inv(L).mT)


def residual(P: Tensor, Q: Tensor) -> Tensor:
    """(I − PPᵀ)Q for an orthonormal frame P, orthogonalised twice so that it holds to rounding."""
    if P.ndim > 2 and P.shape[:-2].numel() == 1 and Q.ndim >= P.ndim:
        P = P.reshape(P.shape[-2:])  # one frame for the whole batch: its products are one product
    C = Q.mT
    for _ in range(2):
        C = C - (C @ P) @ P.mT
    return C.mT


def largest_sine(P: Tensor, Q: Tensor) -> Tensor:
    """‖(I − PPᵀ)Q‖_op, the sine of the largest principal angle between orthonormal frames.

    The residual is formed explicitly, so that small sines keep their digits: 1 − cos² would lose
    everything below 1e-8. Shape (...), in [0, 1].
    """
    C = residual(P, Q)
    gram = C.mT @ C
    scale = gram.diagonal(dim1=-2, dim2=-1).amax(-1)
    # Scaling by the largest entry keeps squares of sines below 1e-154 from underflowing.
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    top = torch.linalg.eigvalsh(gram / safe[..., None, None])[..., -1]
    return (top.clamp_min(0).sqrt() * scale.sqrt()).clamp_max(1.0)


def principal_angles(P: Tensor, Q: Tensor) -> Tensor:
    """All principal angles (..., p) between orthonormal frames (..., n, p), descending, radians.

    Sines are singular values of (I − PPᵀ)Q by the preconditioned Jacobi method, which keeps small
    ones beside large ones; cosines those of PᵀQ; the angle is atan2(sine, cosine). Gradients go
    through both: those of the sines are a plain SVD's, which only the values need Jacobi for.
    """
    cosines = torch.linalg.svdvals(P.mT @ Q).flip(-1).clamp(max=1.0)
    C = residual(P, Q)
    values = C.detach().cpu()
    lapack = scipy.linalg.lapack
    jacobi = lapack.dgejsv if C.dtype == torch.float64 else lapack.sgejsv
    rows = [_jacobi_values(M.numpy(), jacobi) for M in values.reshape(-1, *C.shape[-2:])]
    sines = torch.from_numpy(np.stack(rows)).reshape(*C.shape[:-2], C.shape[-1]).to(C.device)
    if C.requires_grad:
        plain = torch.linalg.svdvals(C)
        sines = sines + (plain - plain.detach())
    return elementwise.atan2(sines, cosines)


def _jacobi_values(M: np.ndarray, jacobi: object) -> np.ndarray:
    if not M.any():
        return np.zeros(M.shape[1], M.dtype)
    # joba=2: rows and columns of any scaling; jobu=jobv=3: values only.
    values, *_, work, _, info = jacobi(np.asfortranarray(M), joba=2, jobu=3, jobv=3)  # type: ignore[operator]
    if info != 0:
        raise ArithmeticError(f"LAPACK gejsv did not converge (info={info})")
    return values * (work[0] / work[1])


class Inverse(NamedTuple):
    """A symmetric (pseudo-)inverse and the number of directions kept."""

    matrix: Tensor  # (..., r, r)
    kept: Tensor  # (...), int64


def inverse_psd(M: Tensor, damping: float | Tensor = 0.0) -> Inverse:
    """(M + λI)⁻¹ for symmetric positive semidefinite M (..., r, r); a pseudo-inverse at λ = 0.

    At λ = 0 the eigenvalues below r·eps·(largest one) are treated as zero: that is the rounding
    error of a Gram matrix, so nothing smaller carries information. A non-finite M gives NaN and
    kept = r, and does not disturb the rest of the batch.

    Args:
        M: (..., r, r).
        damping: λ >= 0, a number or a tensor (..., 1, 1) that broadcasts over the batch.
    """
    r = M.shape[-1]
    finite = torch.isfinite(M).flatten(-2).all(-1)
    eye = torch.eye(r, dtype=M.dtype, device=M.device)
    values, vectors = eigen.eigh(torch.where(finite[..., None, None], M, eye))
    lam = damping[..., 0] if isinstance(damping, Tensor) else damping
    cutoff = r * eps(M) * values[..., -1:].clamp_min(0)
    shifted = values.clamp_min(0) + lam
    keep = (values > cutoff) | (lam > 0)
    weights = torch.where(keep, 1 / torch.where(keep, shifted, torch.ones_like(shifted)), 0.0)
    matrix = (vectors * weights[..., None, :]) @ vectors.mT
    matrix = torch.where(finite[..., None, None], matrix, torch.full_like(matrix, torch.nan))
    return Inverse(matrix, torch.where(finite, keep.sum(-1), r))


def polar(M: Tensor) -> Tensor:
    """UVᵀ from M = USVᵀ (..., n, p), over the singular values above rounding; NaN goes through.

    M is a product of rank-short factors often enough: what the rounding of such products leaves in
    place of zeros, below ε^{2/3} of the largest, is no direction.
    """
    finite = torch.isfinite(M).flatten(-2).all(-1)[..., None, None]
    U, S, Vh = torch.linalg.svd(torch.where(finite, M, 0.0), full_matrices=False)
    keep = S > eps(M) ** (2 / 3) * S[..., :1]
    return torch.where(finite, (U * keep[..., None, :]) @ Vh, torch.nan)


def relative_norm(M: Tensor, reference: Tensor) -> Tensor:
    """‖M‖_F / ‖reference‖_F over the last two dimensions; 0 where M is zero."""
    size = torch.linalg.matrix_norm(M)
    other = torch.linalg.matrix_norm(reference)
    return torch.where(size > 0, size / other, size)


def append_directions(basis: Tensor, M: Tensor) -> Tensor:
    """An orthonormal basis of span(basis) + col(M), (..., n, p + q), or `basis` where M adds none.

    All of M's columns are appended as soon as one instance of the batch needs them, so that the
    batch keeps one width; at p + q >= n the answer is a complete basis of n columns.

    Args:
        basis: (..., n, p), orthonormal.
        M: (..., n, q).
    """
    if not bool(M.any()):
        return basis
    C = residual(basis, M)
    if bool((relative_norm(C, M) <= M.shape[-2] * eps(M)).all()):
        return basis
    n, p, q = M.shape[-2], basis.shape[-1], M.shape[-1]
    batch = broadcast(basis.shape[:-2], C.shape[:-2])
    both = torch.cat([basis.expand(*batch, n, p), C.expand(*batch, n, q)], dim=-1)
    if p + q >= n:
        return torch.linalg.qr(both, mode="complete").Q
    return torch.linalg.qr(both).Q
