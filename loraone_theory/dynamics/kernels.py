"""Compiled steps of plain descent on the reduced linear problem, with the losses after each.

Matrices are held transposed and padded with zeros to whole vectors: A (r, w) and F (m, w) with
w >= d, B (r, m). F = T − sAB of the present A and B is kept from step to step, so that a step and
the losses after it share it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from loraone_theory.core.compiled import compiled


class Runs(NamedTuple):
    """n runs and their problems; A, B and F are overwritten."""

    A: np.ndarray  # (n, r, w)
    B: np.ndarray  # (n, r, m)
    F: np.ndarray  # (n, m, w)
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
    """F from A and B."""
    for i in range(len(runs.A)):
        _misfit(runs.target[i], runs.A[i], runs.B[i], scale, runs.F[i])


@compiled
def _misfit(target: Any, A: Any, B: Any, scale: Any, F: Any) -> None:
    """F = T − sAB, four rows of A at a time."""
    r, w = A.shape
    whole = r - r % 4
    for c in range(B.shape[1]):
        for j in range(w):
            F[c, j] = target[c, j]
        for q in range(0, whole, 4):
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
def _step(A: Any, B: Any, F: Any, values: Any, gain: Any, ratio: Any, M: Any, inner: Any) -> None:
    """With M = ηsΣ̂F: A ← A + MBᵀ, B ← B + ρAᵀM, both from time-t values."""
    (r, w), m, zero = A.shape, B.shape[1], A.dtype.type(0)
    for c in range(m):
        for j in range(w):
            M[c, j] = gain * (values[j] * F[c, j])
    whole = m - m % 4
    for q in range(r):
        for c in range(0, whole, 4):
            t0, t1, t2, t3 = zero, zero, zero, zero
            for j in range(w):
                t0 += A[q, j] * M[c, j]
                t1 += A[q, j] * M[c + 1, j]
                t2 += A[q, j] * M[c + 2, j]
                t3 += A[q, j] * M[c + 3, j]
            inner[q, c], inner[q, c + 1], inner[q, c + 2], inner[q, c + 3] = t0, t1, t2, t3
        for c in range(whole, m):
            t0 = zero
            for j in range(w):
                t0 += A[q, j] * M[c, j]
            inner[q, c] = t0
    for q in range(r):
        for c in range(0, whole, 4):
            b0, b1, b2, b3 = B[q, c], B[q, c + 1], B[q, c + 2], B[q, c + 3]
            for j in range(w):
                ahead = b0 * M[c, j] + b1 * M[c + 1, j]
                A[q, j] += ahead + (b2 * M[c + 2, j] + b3 * M[c + 3, j])
        for c in range(whole, m):
            b0 = B[q, c]
            for j in range(w):
                A[q, j] += b0 * M[c, j]
    for q in range(r):
        for c in range(m):
            B[q, c] += ratio * inner[q, c]


@compiled
def _losses(F: Any, values: Any, measured: Any, row: int, i: int) -> None:
    """½⟨E, Σ̂E⟩, ½‖E‖² and ‖E‖ of E = −F."""
    loss, square, half = F.dtype.type(0), F.dtype.type(0), F.dtype.type(0.5)
    for c in range(F.shape[0]):
        for j in range(F.shape[1]):
            f = F[c, j]
            loss += f * (values[j] * f)
            square += f * f
    if len(measured.loss):
        measured.loss[row, i] = half * loss
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
    r, w = runs.A.shape[1:]
    m = runs.B.shape[2]
    M, inner = np.empty((m, w), runs.A.dtype), np.empty((r, m), runs.A.dtype)
    for i in range(part[0], part[1]):
        A, B, F, taken = runs.A[i], runs.B[i], runs.F[i], 0
        for t in range(len(rows)):
            gain = gains[min(t, len(gains) - 1), i]
            _step(A, B, F, runs.values[i], gain, ratio, M, inner)
            _misfit(runs.target[i], A, B, scale, F)
            if rows[t] >= 0:
                _losses(F, runs.values[i], measured, rows[t], i)
                if len(measured.states):
                    measured.states[i, taken] = A
                    taken += 1


@compiled
def observe(runs: Any, measured: Any, row: int) -> None:
    """Measure the present state of all runs into a row."""
    for i in range(len(runs.A)):
        _losses(runs.F[i], runs.values[i], measured, row, i)
        if len(measured.states):
            measured.states[i, 0] = runs.A[i]
