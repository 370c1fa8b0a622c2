"""The gradients of the ReLU model in one compiled pass over its samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.arrays import broadcast
from loraone_theory.core.compiled import compiled
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu.problem import ReLUProblem

# Samples that are gone through together, at most: their rows of AX and of the answer stay in cache.
PIECE = 1024
# The samples of a piece are an odd multiple of this, with zeros at the end: rows a power of two
# apart would share the same few places of a cache.
VECTOR = 16
# Rows and columns that are worked on together; zeros fill them up.
BLOCK = 4


class Samples(NamedTuple):
    """An instance's samples in pieces, transposed."""

    X: np.ndarray  # (pieces, d, h)
    frozen: np.ndarray  # (pieces, k, h) XW_f
    labels: np.ndarray  # (pieces, k, h) Y


class Room(NamedTuple):
    """What a pass reads, works in and leaves; zeros fill r, d and k up to whole blocks."""

    A: np.ndarray  # (r, d), transposed
    B: np.ndarray  # (r, k)
    AX: np.ndarray  # (r, h), transposed
    BM: np.ndarray  # (r, h), transposed
    misses: np.ndarray  # (BLOCK, h) columns of M
    grad_A: np.ndarray  # (r, d) (XᵀMBᵀ)ᵀ
    grad_B: np.ndarray  # (r, k) (XA)ᵀM


class Fused:
    """Loss and gradients of a `ReLUProblem`: products, mask, residual and sums in one pass.

    X, XW_f and Y are held once more, transposed and in pieces of samples.
    """

    def __init__(self, problem: ReLUProblem) -> None:
        self._samples, self._batch = problem.samples, problem.batch_shape
        count = -(-self._samples // PIECE)
        self._height = (-(-self._samples // (count * VECTOR)) | 1) * VECTOR
        parts = [self._cut(M, count) for M in problem.parts()]
        self._instances = [Samples(*instance) for instance in zip(*parts, strict=True)]
        self._places: dict[torch.Size, list[int]] = {}
        self._rooms: dict[int, Room] = {}  # by rank

    def _cut(self, M: Tensor, count: int) -> np.ndarray:
        """(..., N, ·) as (instances, pieces, ·, samples of each), filled up."""
        missing = count * self._height - self._samples
        whole = torch.nn.functional.pad(
            _in_a_row(M, self._batch), (0, -M.shape[-1] % BLOCK, 0, missing)
        )
        return whole.unflatten(-2, (count, self._height)).mT.contiguous().numpy()

    def gradients(self, shift: Factors) -> Factors:
        """(Xᵀ(MBᵀ)/N, (XA)ᵀM/N)."""
        return self._runs(shift)[1]

    def loss_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """The loss (...), which the pass has by the way, with the gradients."""
        losses, gradients = self._runs(shift)
        return gradients.B.new_tensor(losses).view(gradients.B.shape[:-2]), gradients

    def _runs(self, shift: Factors) -> tuple[list[float], Factors]:
        """The loss of every run, and the gradients."""
        batch = shift.B.shape[:-2]
        if not shift.A.shape[:-2] == batch == self._batch:
            batch = broadcast(shift.shape[:-2], self._batch)
        A, B = (_in_a_row(M, batch).numpy() for M in shift)
        grad_A, grad_B = np.empty_like(A), np.empty_like(B)
        room = self._room(A, B)
        losses = [
            self._through(self._instances[place], room, A[i], B[i], grad_A[i], grad_B[i])
            for i, place in enumerate(self._places_of(batch))
        ]
        found = (torch.from_numpy(M.reshape(*batch, *M.shape[1:])) for M in (grad_A, grad_B))
        return losses, Factors(*found)

    def _room(self, A: np.ndarray, B: np.ndarray) -> Room:
        """For runs A (n, d, r) and B (n, r, k)."""
        (d, r), k = A.shape[1:], B.shape[2]
        if r not in self._rooms:
            rows, deep, wide = (-(-size // BLOCK) * BLOCK for size in (r, d, k))
            shapes = (rows, deep), (rows, wide), (rows, self._height), (rows, self._height)
            others = (BLOCK, self._height), (rows, deep), (rows, wide)
            self._rooms[r] = Room(*(np.zeros(shape, A.dtype) for shape in shapes + others))
        return self._rooms[r]

    def _places_of(self, batch: torch.Size) -> list[int]:
        """The instance of every run of the batch."""
        if batch not in self._places:
            own = torch.arange(len(self._instances)).view(self._batch)
            self._places[batch] = own.expand(batch).flatten().tolist()
        return self._places[batch]

    def _through(self, samples: Samples, room: Room, *run: np.ndarray) -> float:
        """The loss of one run, of A and B; the gradients after them are written."""
        A, B, grad_A, grad_B = run
        (d, r), k = A.shape, B.shape[1]
        room.A[:r, :d], room.B[:r, :k] = A.T, B
        squares = _pass(*room, *samples)
        np.divide(room.grad_A[:r, :d].T, self._samples, out=grad_A)
        np.divide(room.grad_B[:r, :k], self._samples, out=grad_B)
        return squares / (2 * self._samples)


def _in_a_row(M: Tensor, batch: torch.Size) -> Tensor:
    """(n, ·, ·) of M (..., ·, ·), which broadcasts to the batch."""
    if M.ndim == 3 and M.shape[:1] == batch:
        return M
    return M.expand(*batch, *M.shape[-2:]).reshape(-1, *M.shape[-2:])


@compiled
def _pass(
    A: Any,
    B: Any,
    AX: Any,
    BM: Any,
    misses: Any,
    grad_A: Any,
    grad_B: Any,
    X: Any,
    frozen: Any,
    labels: Any,
) -> Any:
    """XᵀMBᵀ, transposed, and (XA)ᵀM with M = (relu(Z) − Y) ⊙ 1{Z > 0}, Z = XW_f + XAB.

    Gives ‖relu(Z) − Y‖_F². The arguments are those of `Room` and `Samples`.
    """
    squares = 0.0
    _clear(grad_A)
    _clear(grad_B)
    for piece in range(len(X)):
        x, side, answers = X[piece], frozen[piece], labels[piece]
        _clear(AX)
        _clear(BM)
        for j in range(0, A.shape[1], BLOCK):
            _spread(A, j, x, j, AX)
        for c in range(0, B.shape[1], BLOCK):
            for e in range(0, BLOCK, 2):
                squares += _misses(AX, B, c + e, side, answers, misses, e)
            _spread(B, c, misses, 0, BM)
            _gathered(AX, misses, 0, grad_B, c)
        for j in range(0, A.shape[1], BLOCK):
            _gathered(BM, x, j, grad_A, j)
    return squares


@compiled
def _clear(M: Any) -> None:
    for q in range(M.shape[0]):
        for n in range(M.shape[1]):
            M[q, n] = 0


@compiled
def _misses(AX: Any, B: Any, c: int, frozen: Any, labels: Any, misses: Any, place: int) -> Any:
    """Two columns of M from the c-th on, at `place`; their share of ‖relu(Z) − Y‖_F²."""
    if len(B) == 8:
        return _misses_of_eight(AX, B, c, frozen, labels, misses, place)
    zero = misses.dtype.type(0)
    squares = zero
    for e in range(2):
        for n in range(misses.shape[1]):
            misses[place + e, n] = frozen[c + e, n]
        for q in range(0, len(B), 4):
            b0, b1, b2, b3 = B[q, c + e], B[q + 1, c + e], B[q + 2, c + e], B[q + 3, c + e]
            for n in range(misses.shape[1]):
                ahead = b0 * AX[q, n] + b1 * AX[q + 1, n]
                misses[place + e, n] += ahead + (b2 * AX[q + 2, n] + b3 * AX[q + 3, n])
        for n in range(misses.shape[1]):
            z = misses[place + e, n]
            miss = (zero if z <= zero else z) - labels[c + e, n]
            squares += miss * miss
            misses[place + e, n] = zero if z <= zero else miss
    return squares


@compiled
def _misses_of_eight(
    AX: Any, B: Any, c: int, frozen: Any, labels: Any, misses: Any, place: int
) -> Any:
    """`_misses` of eight rows of AX, in one pass."""
    zero = misses.dtype.type(0)
    squares, others = zero, zero
    b0, b1, b2, b3 = B[0, c], B[1, c], B[2, c], B[3, c]
    b4, b5, b6, b7 = B[4, c], B[5, c], B[6, c], B[7, c]
    c0, c1, c2, c3 = B[0, c + 1], B[1, c + 1], B[2, c + 1], B[3, c + 1]
    c4, c5, c6, c7 = B[4, c + 1], B[5, c + 1], B[6, c + 1], B[7, c + 1]
    for n in range(misses.shape[1]):
        x0, x1, x2, x3 = AX[0, n], AX[1, n], AX[2, n], AX[3, n]
        x4, x5, x6, x7 = AX[4, n], AX[5, n], AX[6, n], AX[7, n]
        ahead = b0 * x0 + b1 * x1 + (b2 * x2 + b3 * x3)
        y = frozen[c, n] + (ahead + (b4 * x4 + b5 * x5 + (b6 * x6 + b7 * x7)))
        ahead = c0 * x0 + c1 * x1 + (c2 * x2 + c3 * x3)
        z = frozen[c + 1, n] + (ahead + (c4 * x4 + c5 * x5 + (c6 * x6 + c7 * x7)))
        miss = (zero if y <= zero else y) - labels[c, n]
        other = (zero if z <= zero else z) - labels[c + 1, n]
        squares += miss * miss
        others += other * other
        misses[place, n] = zero if y <= zero else miss
        misses[place + 1, n] = zero if z <= zero else other
    return squares + others


@compiled
def _spread(weights: Any, c: int, rows: Any, first: int, sums: Any) -> None:
    """Sums += (four columns of the weights from the c-th on)·(four rows from the first on)."""
    for q in range(0, len(weights), 4):
        a0, a1 = weights[q, c], weights[q, c + 1]
        a2, a3 = weights[q, c + 2], weights[q, c + 3]
        b0, b1 = weights[q + 1, c], weights[q + 1, c + 1]
        b2, b3 = weights[q + 1, c + 2], weights[q + 1, c + 3]
        c0, c1 = weights[q + 2, c], weights[q + 2, c + 1]
        c2, c3 = weights[q + 2, c + 2], weights[q + 2, c + 3]
        d0, d1 = weights[q + 3, c], weights[q + 3, c + 1]
        d2, d3 = weights[q + 3, c + 2], weights[q + 3, c + 3]
        for n in range(sums.shape[1]):
            x0, x1 = rows[first, n], rows[first + 1, n]
            x2, x3 = rows[first + 2, n], rows[first + 3, n]
            sums[q, n] += a0 * x0 + a1 * x1 + (a2 * x2 + a3 * x3)
            sums[q + 1, n] += b0 * x0 + b1 * x1 + (b2 * x2 + b3 * x3)
            sums[q + 2, n] += c0 * x0 + c1 * x1 + (c2 * x2 + c3 * x3)
            sums[q + 3, n] += d0 * x0 + d1 * x1 + (d2 * x2 + d3 * x3)


@compiled
def _gathered(left: Any, rows: Any, first: int, sums: Any, c: int) -> None:
    """Four columns of the sums from the c-th on += left·(four rows from the first on)ᵀ.

    Four rows of the left and two others at a time.
    """
    zero = sums.dtype.type(0)
    for q in range(0, len(left), 4):
        for e in range(0, BLOCK, 2):
            s0, s1, s2, s3 = zero, zero, zero, zero
            t0, t1, t2, t3 = zero, zero, zero, zero
            for n in range(left.shape[1]):
                x, y = rows[first + e, n], rows[first + e + 1, n]
                s0 += left[q, n] * x
                s1 += left[q + 1, n] * x
                s2 += left[q + 2, n] * x
                s3 += left[q + 3, n] * x
                t0 += left[q, n] * y
                t1 += left[q + 1, n] * y
                t2 += left[q + 2, n] * y
                t3 += left[q + 3, n] * y
            sums[q, c + e] += s0
            sums[q + 1, c + e] += s1
            sums[q + 2, c + e] += s2
            sums[q + 3, c + e] += s3
            sums[q, c + e + 1] += t0
            sums[q + 1, c + e + 1] += t1
            sums[q + 2, c + e + 1] += t2
            sums[q + 3, c + e + 1] += t3
