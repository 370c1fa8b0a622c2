"""Compiled steps of plain descent on the reduced linear problem, with the losses after each.

Matrices are held transposed and padded with zeros to whole vectors: A (r, w) and F (m, w) with
w >= d, B (r, m). F = T − sAB and M = Σ̂F of the present A and B are kept from step to step, so that
a step and the losses before it share them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from loraone_theory.core.compiled import compiled


class Runs(NamedTuple):
    """n runs and their problems; all but the target and the values are overwritten."""

    A: np.ndarray  # (n, r, w)
    B: np.ndarray  # (n, r, m)
    F: np.ndarray  # (n, m, w)
    M: np.ndarray  # (n, m, w) Σ̂F
    target: np.ndarray  # (n, m, w)
    values: np.ndarray  # (n, w) of the diagonal Σ̂


class Measured(NamedTuple):
    """What is measured, a row for each of so many steps; an array without rows is not wanted."""

    loss: np.ndarray  # (times, n) each
    risk: np.ndarray
    error: np.ndarray
    states: np.ndarray  # (n, rows, r, w) of A, from the first step of a call on


@compiled
def refresh(runs: Any, scale: Any) -> None:
    """F and M from A and B."""
    for i in range(len(runs.A)):
        _misfit(runs.target[i], runs.A[i], runs.B[i], scale, runs.F[i])
        _weigh(runs.F[i], runs.values[i], runs.M[i])


@compiled
def _misfit(target: Any, A: Any, B: Any, scale: Any, F: Any) -> None:
    """F = T − sAB, the first eight rows of A at once, then four."""
    r, w = A.shape
    whole = r - r % 4
    for c in range(B.shape[1]):
        done = 8 if r >= 8 else 0
        if done == 8:
            b0, b1, b2, b3 = scale * B[0, c], scale * B[1, c], scale * B[2, c], scale * B[3, c]
            b4, b5, b6, b7 = scale * B[4, c], scale * B[5, c], scale * B[6, c], scale * B[7, c]
            for j in range(w):
                ahead = (b0 * A[0, j] + b1 * A[1, j]) + (b2 * A[2, j] + b3 * A[3, j])
                behind = (b4 * A[4, j] + b5 * A[5, j]) + (b6 * A[6, j] + b7 * A[7, j])
                F[c, j] = target[c, j] - (ahead + behind)
        else:
            for j in range(w):
                F[c, j] = target[c, j]
        for q in range(done, whole, 4):
            b0, b1 = scale * B[q, c], scale * B[q + 1, c]
            b2, b3 = scale * B[q + 2, c], scale * B[q + 3, c]
            for j in range(w):
                ahead = b0 * A[q, j] + b1 * A[q + 1, j]
                F[c, j] -= ahead + (b2 * A[q + 2, j] + b3 * A[q + 3, j])
        for q in range(whole, r):
            b = scale * B[q, c]
            for j in range(w):
                F[c, j] -= b * A[q, j]


@compiled
def _weigh(F: Any, values: Any, M: Any) -> tuple[Any, Any]:
    """M = Σ̂F; ⟨F, Σ̂F⟩ and ‖F‖²."""
    weighted, square = F.dtype.type(0), F.dtype.type(0)
    for c in range(F.shape[0]):
        for j in range(F.shape[1]):
            f = F[c, j]
            M[c, j] = values[j] * f
            weighted += f * (values[j] * f)
            square += f * f
    return weighted, square


@compiled
def _step(A: Any, B: Any, M: Any, gain: Any, ratio: Any, inner: Any) -> None:
    """With M = Σ̂F and γ = ηs: A ← A + γMBᵀ, B ← B + ργAᵀM, both from time-t values.

    A row of A takes its products with M, then its step; with the last four rows of M in one pass.
    """
    (r, w), m, zero = A.shape, B.shape[1], A.dtype.type(0)
    whole = m - m % 4
    last = whole - 4
    for q in range(r):
        for c in range(0, last, 4):
            t0, t1, t2, t3 = zero, zero, zero, zero
            for j in range(w):
                t0 += A[q, j] * M[c, j]
                t1 += A[q, j] * M[c + 1, j]
                t2 += A[q, j] * M[c + 2, j]
                t3 += A[q, j] * M[c + 3, j]
            inner[c], inner[c + 1], inner[c + 2], inner[c + 3] = t0, t1, t2, t3
        for c in range(whole, m):
            t0 = zero
            for j in range(w):
                t0 += A[q, j] * M[c, j]
            inner[c] = t0
        if whole > 0:
            b0, b1 = gain * B[q, last], gain * B[q, last + 1]
            b2, b3 = gain * B[q, last + 2], gain * B[q, last + 3]
            t0, t1, t2, t3 = zero, zero, zero, zero
            for j in range(w):
                a, m0, m1 = A[q, j], M[last, j], M[last + 1, j]
                m2, m3 = M[last + 2, j], M[last + 3, j]
                t0 += a * m0
                t1 += a * m1
                t2 += a * m2
                t3 += a * m3
                A[q, j] = a + ((b0 * m0 + b1 * m1) + (b2 * m2 + b3 * m3))
            inner[last], inner[last + 1], inner[last + 2], inner[last + 3] = t0, t1, t2, t3
        for c in range(0, last, 4):
            b0, b1 = gain * B[q, c], gain * B[q, c + 1]
            b2, b3 = gain * B[q, c + 2], gain * B[q, c + 3]
            for j in range(w):
                ahead = b0 * M[c, j] + b1 * M[c + 1, j]
                A[q, j] += ahead + (b2 * M[c + 2, j] + b3 * M[c + 3, j])
        for c in range(whole, m):
            b0 = gain * B[q, c]
            for j in range(w):
                A[q, j] += b0 * M[c, j]
        for c in range(m):
            B[q, c] += ratio * (gain * inner[c])


@compiled
def _take(A: Any, to: Any) -> None:
    """A copy, by loops that are vectorised."""
    for q in range(A.shape[0]):
        for j in range(A.shape[1]):
            to[q, j] = A[q, j]


@compiled
def _put(weighted: Any, square: Any, measured: Any, row: int, i: int) -> None:
    """½⟨E, Σ̂E⟩, ½‖E‖² and ‖E‖ of E = −F."""
    half = measured.states.dtype.type(0.5)
    if len(measured.loss):
        measured.loss[row, i] = half * weighted
    if len(measured.risk):
        measured.risk[row, i] = half * square
    if len(measured.error):
        measured.error[row, i] = np.sqrt(square)


@compiled
def advance(
    runs: Any, measured: Any, rows: Any, gains: Any, scale: Any, ratio: Any, part: Any
) -> None:
    """A step of the runs of `part` for each of `rows`.

    Args:
        rows: (steps,) the row that is measured after a step, −1 for none.
        gains: (steps or 1, n) ηs of each step.
        part: of the n runs, from where to where.
    """
    inner = np.empty(runs.B.shape[2], runs.A.dtype)
    for i in range(part[0], part[1]):
        A, B, F, M, taken = runs.A[i], runs.B[i], runs.F[i], runs.M[i], 0
        target, values = runs.target[i], runs.values[i]
        for t in range(len(rows)):
            _step(A, B, M, gains[min(t, len(gains) - 1), i], ratio, inner)
            _misfit(target, A, B, scale, F)
            weighted, square = _weigh(F, values, M)
            if rows[t] >= 0:
                _put(weighted, square, measured, rows[t], i)
                if len(measured.states):
                    _take(A, measured.states[i, taken])
                    taken += 1


@compiled
def observe(runs: Any, measured: Any, row: int) -> None:
    """Measure the present state of all runs into a row."""
    for i in range(len(runs.A)):
        weighted, square = _weigh(runs.F[i], runs.values[i], runs.M[i])
        _put(weighted, square, measured, row, i)
        if len(measured.states):
            _take(runs.A[i], measured.states[i, 0])
