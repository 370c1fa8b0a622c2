"""The gradients of the ReLU model in one compiled pass over its N×k entries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.arrays import broadcast
from loraone_theory.core.compiled import compiled
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu.problem import ReLUProblem

# Samples that are gone through together, at most: their rows of AX and of the answer stay in cache.
PIECE = 512
# The samples of a piece are a multiple of this, with zeros at the end.
VECTOR = 16
# Rows of AX and columns of the answer that are worked on together; zeros fill them up.
BLOCK = 4


class Fused:
    """Loss and gradients of a `ReLUProblem`: product, mask, residual and sums in one pass.

    X, XW_f and Y are held once more: in pieces of samples, the last two transposed.
    """

    def __init__(self, problem: ReLUProblem) -> None:
        X, frozen, labels = problem.parts()
        self._samples, self._batch = problem.samples, problem.batch_shape
        self._count = -(-self._samples // PIECE)
        self._inputs = _on(self._cut(X), self._batch, 3)
        sides = (_filled(self._cut(M), -1).movedim(-1, -3).contiguous() for M in (frozen, labels))
        self._sides = [_on(M, self._batch, 3) for M in sides]

    def _cut(self, M: Tensor) -> Tensor:
        """(..., N, ·) with rows of zeros added, (..., pieces, samples of each, ·)."""
        height = -(-self._samples // (self._count * VECTOR)) * VECTOR
        missing = self._count * height - self._samples
        return torch.nn.functional.pad(M, (0, 0, 0, missing)).unflatten(-2, (self._count, height))

    def gradients(self, shift: Factors) -> Factors:
        """(Xᵀ(MBᵀ)/N, (XA)ᵀM/N)."""
        return self.loss_and_gradients(shift)[1]

    def loss_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """The loss (...), which the pass has by the way, with the gradients."""
        batch = broadcast(shift.shape[:-2], self._batch)
        A, B = (_on(M, batch, 2) for M in shift)
        X, frozen, labels = (_on(M, batch, 3) for M in (self._inputs, *self._sides))
        grad_A, grad_B = B.new_empty(A.mT.shape).mT, B.new_empty(B.shape)
        loss = B.new_empty(batch)
        r, k = B.shape[-2:]
        for at in itertools.product(*map(range, batch)):
            whole = _filled(_filled(B[at], -2), -1)
            AX, BM = B.new_zeros(2, self._count, len(whole), X.shape[-2])
            torch.matmul(A[at].mT, X[at].mT, out=AX[:, :r])
            sums = torch.zeros_like(whole)
            squares = _pass(*(M.numpy() for M in (AX, whole, frozen[at], labels[at], BM, sums)))
            loss[at] = squares / (2 * self._samples)
            rows = BM[:, :r].transpose(0, 1).flatten(1)
            torch.mm(rows, X[at].flatten(0, 1), out=grad_A[at].mT)
            grad_B[at] = sums[:r, :k]
        return loss, Factors(grad_A.div_(self._samples), grad_B.div_(self._samples))


def _on(M: Tensor, batch: torch.Size, own: int) -> Tensor:
    """M with `own` dimensions after those of the batch."""
    return M.expand(*batch, *M.shape[-own:])


def _filled(M: Tensor, axis: int) -> Tensor:
    """M, contiguous, with zeros up to whole blocks along an axis of the last two."""
    missing = -M.shape[axis] % BLOCK
    room = (0, missing) if axis == -1 else (0, 0, 0, missing)
    return (torch.nn.functional.pad(M, room) if missing else M).contiguous()


@compiled
def _pass(AX: Any, B: Any, frozen: Any, labels: Any, BM: Any, grad_B: Any) -> Any:
    """BMᵀ and AX·M added to, with M = (relu(Z) − Y) ⊙ 1{Z > 0}, Z = XW_f + (AX)ᵀB.

    Gives ‖relu(Z) − Y‖_F².

    Args:
        AX: (pieces, r, ·), its columns cut into pieces, as are those of frozen and labels.
        B: (r, k).
        frozen: (k, pieces, ·) XW_f, transposed.
        labels: (k, pieces, ·) Y, transposed.
        BM: (pieces, r, ·).
        grad_B: (r, k).
    """
    misses, squares = np.empty((BLOCK, AX.shape[2]), AX.dtype), 0.0
    for piece in range(len(AX)):
        for c in range(0, B.shape[1], BLOCK):
            for e in range(BLOCK):
                side = frozen[c + e, piece], labels[c + e, piece]
                squares += _misses(AX[piece], B[:, c + e], side[0], side[1], misses[e])
            _spread(B[:, c : c + BLOCK], misses, BM[piece])
            _gathered(AX[piece], misses, grad_B[:, c : c + BLOCK])
    return squares


@compiled
def _misses(AX: Any, b: Any, frozen: Any, labels: Any, miss: Any) -> Any:
    """A column of M, and the sum of squares of relu(Z) − Y.

    Eight rows of AX in one pass, other numbers of them four at a time.
    """
    zero = miss.dtype.type(0)
    squares = zero
    if len(b) == 8:
        b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
        for n in range(len(miss)):
            low = b0 * AX[0, n] + b1 * AX[1, n] + (b2 * AX[2, n] + b3 * AX[3, n])
            high = b4 * AX[4, n] + b5 * AX[5, n] + (b6 * AX[6, n] + b7 * AX[7, n])
            z = frozen[n] + (low + high)
            e = (zero if z <= zero else z) - labels[n]
            squares += e * e
            miss[n] = zero if z <= zero else e
        return squares
    for n in range(len(miss)):
        miss[n] = frozen[n]
    for q in range(0, len(b), 4):
        b0, b1, b2, b3 = b[q], b[q + 1], b[q + 2], b[q + 3]
        for n in range(len(miss)):
            ahead = b0 * AX[q, n] + b1 * AX[q + 1, n]
            miss[n] += ahead + (b2 * AX[q + 2, n] + b3 * AX[q + 3, n])
    for n in range(len(miss)):
        z = miss[n]
        e = (zero if z <= zero else z) - labels[n]
        squares += e * e
        miss[n] = zero if z <= zero else e
    return squares


@compiled
def _spread(B: Any, misses: Any, sums: Any) -> None:
    """BMᵀ += B·(four columns)ᵀ."""
    for q in range(len(B)):
        b0, b1, b2, b3 = B[q, 0], B[q, 1], B[q, 2], B[q, 3]
        for n in range(sums.shape[1]):
            ahead = b0 * misses[0, n] + b1 * misses[1, n]
            sums[q, n] += ahead + (b2 * misses[2, n] + b3 * misses[3, n])


@compiled
def _gathered(AX: Any, misses: Any, sums: Any) -> None:
    """AX·M += AX·(four columns), four rows of AX and two columns at a time."""
    zero = sums.dtype.type(0)
    for q in range(0, len(AX), 4):
        for e in range(0, BLOCK, 2):
            s0, s1, s2, s3 = zero, zero, zero, zero
            t0, t1, t2, t3 = zero, zero, zero, zero
            for n in range(AX.shape[1]):
                first, second = misses[e, n], misses[e + 1, n]
                s0 += AX[q, n] * first
                s1 += AX[q + 1, n] * first
                s2 += AX[q + 2, n] * first
                s3 += AX[q + 3, n] * first
                t0 += AX[q, n] * second
                t1 += AX[q + 1, n] * second
                t2 += AX[q + 2, n] * second
                t3 += AX[q + 3, n] * second
            sums[q, e] += s0
            sums[q + 1, e] += s1
            sums[q + 2, e] += s2
            sums[q + 3, e] += s3
            sums[q, e + 1] += t0
            sums[q + 1, e + 1] += t1
            sums[q + 2, e + 1] += t2
            sums[q + 3, e + 1] += t3
