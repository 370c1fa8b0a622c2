"""The gradients of the ReLU model in one compiled pass over its N×k entries."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core.compiled import compiled
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu.problem import ReLUProblem

# Samples that are gone through together, at most: their rows of AX and of the answer stay in cache.
PIECE = 512
# The samples of a piece are a multiple of this, with zeros at the end.
VECTOR = 16


class Fused:
    """`ReLUProblem.gradients` with product, mask, residual and sums of an entry in one pass.

    X, XW_f and Y are held once more: in pieces of samples, the last two transposed.
    """

    def __init__(self, problem: ReLUProblem) -> None:
        X, frozen, labels = problem.parts()
        self._samples, self._batch = problem.samples, problem.batch_shape
        self._count = -(-self._samples // PIECE)
        self._inputs = _on(self._cut(X), self._batch, 3)
        sides = (self._cut(M).movedim(-1, -3).contiguous() for M in (frozen, labels))
        self._sides = [_on(M, self._batch, 3) for M in sides]

    def _cut(self, M: Tensor) -> Tensor:
        """(..., N, ·) with rows of zeros added, (..., pieces, samples of each, ·)."""
        height = -(-self._samples // (self._count * VECTOR)) * VECTOR
        missing = self._count * height - self._samples
        return torch.nn.functional.pad(M, (0, 0, 0, missing)).unflatten(-2, (self._count, height))

    def gradients(self, shift: Factors) -> Factors:
        """(Xᵀ(MBᵀ)/N, (XA)ᵀM/N)."""
        batch = torch.broadcast_shapes(shift.shape[:-2], self._batch)
        A, B = (_on(M, batch, 2) for M in shift)
        X, frozen, labels = (_on(M, batch, 3) for M in (self._inputs, *self._sides))
        grad_A, grad_B = B.new_empty(A.mT.shape).mT, B.new_zeros(B.shape)
        for at in itertools.product(*map(range, batch)):
            AX = A[at].mT @ X[at].mT
            BM = torch.zeros_like(AX)
            given = (AX, B[at].contiguous(), frozen[at], labels[at], BM, grad_B[at])
            _pass(*(M.numpy() for M in given))
            torch.matmul(BM.transpose(0, 1).flatten(1), X[at].flatten(0, 1), out=grad_A[at].mT)
        return Factors(grad_A.div_(self._samples), grad_B.div_(self._samples))


def _on(M: Tensor, batch: torch.Size, own: int) -> Tensor:
    """M with `own` dimensions after those of the batch."""
    return M.expand(*batch, *M.shape[-own:])


@compiled
def _pass(AX: Any, B: Any, frozen: Any, labels: Any, BM: Any, grad_B: Any) -> None:
    """BMᵀ and AX·M added to, with M = (relu(Z) − Y) ⊙ 1{Z > 0}, Z = XW_f + (AX)ᵀB.

    Args:
        AX: (pieces, r, ·), its columns cut into pieces, as are those of frozen and labels.
        B: (r, k).
        frozen: (k, pieces, ·) XW_f, transposed.
        labels: (k, pieces, ·) Y, transposed.
        BM: (pieces, r, ·).
        grad_B: (r, k).
    """
    miss = AX[0, 0].copy()
    for piece in range(len(AX)):
        for c in range(B.shape[1]):
            _misses(AX[piece], B[:, c], frozen[c, piece], labels[c, piece], miss)
            _spread(B[:, c], miss, BM[piece])
            _gathered(AX[piece], miss, grad_B[:, c])


@compiled
def _misses(AX: Any, b: Any, frozen: Any, labels: Any, miss: Any) -> None:
    """A column of M, four rows of AX at a time."""
    r, zero = len(b), miss.dtype.type(0)
    whole = r - r % 4
    for n in range(len(miss)):
        miss[n] = frozen[n]
    for q in range(0, whole, 4):
        b0, b1, b2, b3 = b[q], b[q + 1], b[q + 2], b[q + 3]
        for n in range(len(miss)):
            ahead = b0 * AX[q, n] + b1 * AX[q + 1, n]
            miss[n] += ahead + (b2 * AX[q + 2, n] + b3 * AX[q + 3, n])
    for q in range(whole, r):
        for n in range(len(miss)):
            miss[n] += b[q] * AX[q, n]
    for n in range(len(miss)):
        miss[n] = zero if miss[n] <= zero else miss[n] - labels[n]


@compiled
def _spread(b: Any, miss: Any, sums: Any) -> None:
    """BMᵀ += b·column."""
    for q in range(len(b)):
        scale = b[q]
        for n in range(len(miss)):
            sums[q, n] += scale * miss[n]


@compiled
def _gathered(AX: Any, miss: Any, sums: Any) -> None:
    """AX·M += AX·column, four rows of AX at a time."""
    r, zero = len(sums), miss.dtype.type(0)
    whole = r - r % 4
    for q in range(0, whole, 4):
        t0, t1, t2, t3 = zero, zero, zero, zero
        for n in range(len(miss)):
            t0 += AX[q, n] * miss[n]
            t1 += AX[q + 1, n] * miss[n]
            t2 += AX[q + 2, n] * miss[n]
            t3 += AX[q + 3, n] * miss[n]
        sums[q] += t0
        sums[q + 1] += t1
        sums[q + 2] += t2
        sums[q + 3] += t3
    for q in range(whole, r):
        t = zero
        for n in range(len(miss)):
            t += AX[q, n] * miss[n]
        sums[q] += t
