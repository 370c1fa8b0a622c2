"""Eigendecompositions of small symmetric matrices, also where nothing may be read back.

A library's routine on a device tells the host whether it converged, which a step that is recorded
must not wait for (dynamics/capture.py). Within `recorded_work` Jacobi rotations of a fixed number
take its place, and wider matrices than those are for are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# The widest matrix that rotations are used for: their number of kernels grows as its width.
WIDEST = 8
# Sweeps over all pairs. Full matrices of this width take half as many; singular ones more.
SWEEPS = 12

_recording: ContextVar[bool] = ContextVar("recording", default=False)


@contextmanager
def recorded_work() -> Iterator[None]:
    """Decompose in the block without reading anything back."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether nothing may be read back now."""
    return _recording.get()


def eigh(M: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., r), ascending, and eigenvectors (..., r, r) of a symmetric finite M."""
    if _recording.get():
        return jacobi(_narrow(M))
    values, vectors = torch.linalg.eigh(M)
    return values, vectors


def eigvalsh(M: Tensor) -> Tensor:
    """Eigenvalues (..., r), ascending, of a symmetric finite M."""
    if _recording.get():
        return jacobi(_narrow(M))[0]
    return torch.linalg.eigvalsh(M)


def _narrow(M: Tensor) -> Tensor:
    """M, where its decomposition can be recorded.

    Raises:
        RuntimeError: it is too wide, as a device says of what it cannot record.
    """
    if M.shape[-1] > WIDEST:
        raise RuntimeError(f"no decomposition wider than {WIDEST} is recorded; got {M.shape[-1]}")
    return M


def jacobi(M: Tensor) -> tuple[Tensor, Tensor]:
    """`eigh` by `SWEEPS` sweeps of Jacobi's method, r/2 rotations at a time.

    Columns i and i + h, h = r/2, are a pair; between rounds all but the first move on as in a
    round-robin tournament, so that r − 1 rounds pair every two. An odd width gets a zero row and
    column. Eigenvalues are good to eps·‖M‖ and vectors are orthonormal to eps.

    Reference: Golub, Van Loan, Matrix Computations, 8.5.

    >>> jacobi(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))[0].round(decimals=12)
    tensor([1., 3.], dtype=torch.float64)
    """
    r = M.shape[-1]
    if r == 1:
        return M[..., 0], torch.ones_like(M)
    M = torch.nn.functional.pad((M + M.mT) / 2, (0, r % 2, 0, r % 2))
    n = r + r % 2
    V = torch.eye(n, dtype=M.dtype, device=M.device).expand(M.shape)
    for _ in range(SWEEPS * (n - 1)):
        c, s = _rotations(M)
        both = _turned(torch.cat([M, V], dim=-2), c, s)
        V = both[..., n:, :]
        M = _turned(both[..., :n, :].mT, c, s)
    values, vectors = M.diagonal(dim1=-2, dim2=-1), V
    if r < n:
        # The added column is an eigenvector by itself, wherever it has come to: it goes last.
        added = vectors[..., -1, :].abs() > 0.5
        values = values.masked_fill(added, torch.inf)
    values, order = values.sort(dim=-1)
    vectors = vectors.gather(-1, order[..., None, :].expand(vectors.shape))
    return values[..., :r], vectors[..., :r, :r]


def _rotations(M: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., 1, h) that make the entries (i, i + h) zero, of the smaller angle."""
    h = M.shape[-1] // 2
    diagonal = M.diagonal(dim1=-2, dim2=-1)
    across = M[..., :h, h:].diagonal(dim1=-2, dim2=-1)
    gap = diagonal[..., h:] - diagonal[..., :h]
    # t = 2m/(g ± √(g² + 4m²)), the smaller root of t² + (g/m)t − 1, is 0 at m = 0.
    root = torch.hypot(gap, 2 * across)
    size = gap.abs() + root
    t = torch.where(size > 0, 2 * across / size.where(size > 0, 1.0), 0.0)
    t = torch.where(gap < 0, -t, t)
    c = torch.rsqrt(1 + t * t)
    return c[..., None, :], (t * c)[..., None, :]


def _turned(X: Tensor, c: Tensor, s: Tensor) -> Tensor:
    """The pairs of columns turned, then moved on by one round."""
    h = X.shape[-1] // 2
    first, second = X[..., :h], X[..., h:]
    t, b = c * first - s * second, s * first + c * second
    if h == 1:
        return torch.cat([t, b], dim=-1)
    moved = [t[..., :1], b[..., :1], t[..., 1:-1], b[..., 1:], t[..., -1:]]
    return torch.cat(moved, dim=-1)
