"""Largest principal angles between U_{r*}(A) and a frame P of many states, by compiled loops.

With the leading eigenpairs (S², V) of AᵀA, Q = AVS⁻¹ and C = (I − PPᵀ)Q the sine is the square root
of the largest eigenvalue of CᵀC. Jacobi's method decomposes `LANES` small matrices side by
side, an operation of all of them at once; what one gives does not depend on those beside it. Where
the spectrum of AᵀA leaves the subspace unclear, as in `core.linalg.left_frame`, it is taken from A
itself by one-sided Jacobi rotations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from loraone_theory.core.compiled import compiled

# Matrices that are decomposed side by side, always as many: so that none rounds by its place.
LANES = 64
# Sweeps of Jacobi's method; it has converged after a third of them.
SWEEPS = 30


@compiled
def largest_sines(states: Any, frame: Any, d: int, clear: float, out: Any) -> None:
    """‖(I − PPᵀ)Q‖_op for Q = U_p(A) of every state; NaN where that subspace is undefined.

    Args:
        states: (count, r, w) of A, transposed and padded with zeros, p <= r.
        frame: (p, w) P likewise.
        d: rows of A.
        clear: the gap, relative to the largest eigenvalue, from which AᵀA tells the subspace.
        out: (count,).
    """
    (count, r, w), p, kind = states.shape, len(frame), frame.dtype
    G, V = np.zeros((r, r, LANES), kind), np.empty((r, r, LANES), kind)
    W, C, copy = np.empty((p, p, LANES), kind), np.empty((p, w), kind), np.empty((r, w), kind)
    values, order, line = np.empty(r, kind), np.empty(r, np.int64), np.empty(r, kind)
    defined, zero, one = np.empty(LANES, np.bool_), kind.type(0), kind.type(1)
    roots = np.empty(LANES, kind)
    # Squares of entries far below the largest ones must be representable too.
    least = np.finfo(kind).tiny / np.finfo(kind).eps ** 2
    for first in range(0, count, LANES):
        here = min(LANES, count - first)
        W[:] = zero
        V[:] = zero
        for e in range(LANES):
            for a in range(r):
                V[a, a, e] = one
            defined[e] = e < here and least < _gram(states[first + e], line, G, e) < np.inf
            if not defined[e]:
                G[:, :, e] = zero
            roots[e] = _to_one(G, e)
        _jacobi(G, V)
        for e in range(here):
            A = states[first + e]
            for a in range(r):
                values[a] = G[a, a, e]
            _sort(values, order)
            below = values[order[p]] if p < r else zero
            gap = values[order[p - 1]] - max(below, zero)
            if defined[e] and gap > clear * values[order[0]]:
                C[:] = zero
                for l in range(p):
                    for a in range(r):
                        line[a] = -V[a, order[l], e] / (np.sqrt(values[order[l]]) * roots[e])
                    _less(C, l, A, line)
            else:
                copy[:] = A
                defined[e] = _by_rotations(copy, d, C, line, order)
            if defined[e]:
                _project(C, frame, line)
                for l in range(p):
                    _inner(C, l, C, l + 1, line)
                    for k in range(l + 1):
                        W[k, l, e] = line[k]
            roots[e] = _to_one(W, e)
        _jacobi(W, W[:0])
        for e in range(here):
            top = zero
            for l in range(p):
                top = max(top, W[l, l, e])
            out[first + e] = min(np.sqrt(top) * roots[e], one) if defined[e] else np.nan


@compiled
def _gram(A: Any, line: Any, G: Any, e: int) -> Any:
    """AᵀA into a lane; its largest entry, NaN with any."""
    top = G.dtype.type(0)
    for a in range(len(A)):
        _inner(A, a, A, a + 1, line)
        for b in range(a + 1):
            G[a, b, e] = G[b, a, e] = line[b]
        if not line[a] >= 0:
            return line[a]
        top = max(top, line[a])
    return top


@compiled
def _to_one(G: Any, e: int) -> Any:
    """A lane over 4^h with its largest diagonal entry in [1/4, 1), and 2^h: without rounding.

    Squares of its entries are within range then. An entry for which 4^{−h} is no float stays less.
    """
    top, kind = G.dtype.type(0), G.dtype.type
    for a in range(len(G)):
        top = max(top, G[a, a, e])
    half = (max(math.frexp(top)[1], math.frexp(np.finfo(kind).tiny)[1]) + 1) // 2
    for a in range(len(G)):
        for b in range(len(G)):
            G[a, b, e] *= kind(math.ldexp(1.0, -2 * half))
    return kind(math.ldexp(1.0, half))


@compiled
def _dot(X: Any, a: int, Y: Any, b: int) -> Any:
    """⟨a-th row of X, b-th of Y⟩. A row is not handed over as one, which costs as much as it."""
    total = X.dtype.type(0)
    for j in range(X.shape[1]):
        total += X[a, j] * Y[b, j]
    return total


@compiled
def _inner(X: Any, a: int, Y: Any, rows: int, out: Any) -> None:
    """The a-th row of X times the first rows of Y, four at a time."""
    zero = X.dtype.type(0)
    whole = rows - rows % 4
    for l in range(0, whole, 4):
        t0, t1, t2, t3 = zero, zero, zero, zero
        for j in range(X.shape[1]):
            t0 += Y[l, j] * X[a, j]
            t1 += Y[l + 1, j] * X[a, j]
            t2 += Y[l + 2, j] * X[a, j]
            t3 += Y[l + 3, j] * X[a, j]
        out[l], out[l + 1], out[l + 2], out[l + 3] = t0, t1, t2, t3
    for l in range(whole, rows):
        out[l] = _dot(Y, l, X, a)


@compiled
def _less(X: Any, a: int, Y: Any, parts: Any) -> None:
    """From the a-th row of X, Yᵀparts, four rows of Y at a time."""
    whole = len(Y) - len(Y) % 4
    for l in range(0, whole, 4):
        p0, p1, p2, p3 = parts[l], parts[l + 1], parts[l + 2], parts[l + 3]
        for j in range(X.shape[1]):
            ahead = p0 * Y[l, j] + p1 * Y[l + 1, j]
            X[a, j] -= ahead + (p2 * Y[l + 2, j] + p3 * Y[l + 3, j])
    for l in range(whole, len(Y)):
        part = parts[l]
        for j in range(X.shape[1]):
            X[a, j] -= part * Y[l, j]


@compiled
def _project(X: Any, frame: Any, line: Any) -> None:
    """X ← X − XPᵀP by rows."""
    for a in range(len(X)):
        _inner(X, a, frame, len(frame), line)
        _less(X, a, frame, line)


@compiled
def _jacobi(G: Any, V: Any) -> None:
    """Eigenvalues of symmetric matrices (r, r, lanes) to their diagonals, V ← V·vectors.

    The upper triangle alone is read and written.
    """
    r, kind = len(G), G.dtype
    lanes = G.shape[2]
    c, s, t = np.zeros(lanes, kind), np.zeros(lanes, kind), np.zeros(lanes, kind)
    small = np.zeros(lanes, kind)
    for a in range(r):
        for e in range(lanes):
            small[e] = max(small[e], abs(G[a, a, e]) * (np.finfo(kind).eps / kind.type(4)))
    for _ in range(SWEEPS):
        moved = 0
        for a in range(r - 1):
            for b in range(a + 1, r):
                turned = _angles(G, a, b, c, s, t, small)
                moved += turned
                if turned == 0:
                    continue
                for k in range(a):
                    _turn(G, k, a, k, b, c, s)
                for k in range(a + 1, b):
                    _turn(G, a, k, k, b, c, s)
                for k in range(b + 1, r):
                    _turn(G, a, k, b, k, c, s)
                for k in range(len(V)):
                    _turn(V, k, a, k, b, c, s)
        if moved == 0:
            break


@compiled
def _angles(G: Any, a: int, b: int, c: Any, s: Any, t: Any, small: Any) -> int:
    """Cosines and sines that make entry (a, b) zero, and that done to the 2×2 block.

    1 and 0 where it is zero to rounding. How many are not.
    """
    zero, one, four = G.dtype.type(0), G.dtype.type(1), G.dtype.type(4)
    turned = 0
    for e in range(len(c)):
        turned += abs(G[a, b, e]) > small[e]
    if turned == 0:
        return 0
    for e in range(len(c)):
        across, gap = G[a, b, e], G[b, b, e] - G[a, a, e]
        turns = abs(across) > small[e]
        size = abs(gap) + np.sqrt(gap * gap + four * (across * across))
        tangent = (across + across) / (size if turns else one)
        tangent = tangent if turns else zero
        tangent = -tangent if gap < zero else tangent
        c[e] = one / np.sqrt(one + tangent * tangent)
        s[e] = tangent * c[e]
        t[e] = tangent * across
        G[a, b, e] = zero if turns else across
    for e in range(len(c)):
        G[a, a, e] -= t[e]
        G[b, b, e] += t[e]
    return turned


@compiled
def _turn(M: Any, i: int, j: int, k: int, l: int, c: Any, s: Any) -> None:
    """Entries (i, j) and (k, l) of all lanes, by their rotations."""
    for e in range(len(c)):
        u, v = M[i, j, e], M[k, l, e]
        M[i, j, e] = c[e] * u - s[e] * v
        M[k, l, e] = s[e] * u + c[e] * v


@compiled
def _sort(values: Any, order: Any) -> None:
    """Indices of the values, descending."""
    for a in range(len(values)):
        k = a
        while k > 0 and values[order[k - 1]] < values[a]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = a


@compiled
def _by_rotations(Q: Any, d: int, C: Any, sizes: Any, order: Any) -> bool:
    """C gets the leading left frame of A = Q, overwritten; whether the subspace is defined."""
    (r, w), p, eps = Q.shape, len(C), np.finfo(Q.dtype).eps
    largest = Q.dtype.type(0)
    for a in range(r):
        for j in range(w):
            if not np.isfinite(Q[a, j]):
                return False
            largest = max(largest, abs(Q[a, j]))
    if largest == 0:
        return False
    for a in range(r):
        for j in range(w):
            Q[a, j] /= largest
    _orthogonalise(Q, np.sqrt(w) * eps)
    for a in range(r):
        sizes[a] = np.sqrt(_dot(Q, a, Q, a))
    _sort(sizes, order)
    below = sizes[order[p]] if p < r else Q.dtype.type(0)
    if not sizes[order[p - 1]] - below > max(d, r) * eps * sizes[order[0]]:
        return False
    for l in range(p):
        for j in range(w):
            C[l, j] = Q[order[l], j] / sizes[order[l]]
    return True


@compiled
def _orthogonalise(Q: Any, least: float) -> None:
    """Rotate rows of Q in pairs until their cosines are at most `least`."""
    for _ in range(SWEEPS):
        moved = False
        for a in range(len(Q) - 1):
            for b in range(a + 1, len(Q)):
                x, y, across = _dot(Q, a, Q, a), _dot(Q, b, Q, b), _dot(Q, a, Q, b)
                if abs(across) <= least * np.sqrt(x) * np.sqrt(y):
                    continue
                moved = True
                gap, one = y - x, Q.dtype.type(1)
                t = (across + across) / (abs(gap) + np.sqrt(gap * gap + 4 * (across * across)))
                t = -t if gap < 0 else t
                c = one / np.sqrt(one + t * t)
                for j in range(Q.shape[1]):
                    u, v = Q[a, j], Q[b, j]
                    Q[a, j] = c * u - t * c * v
                    Q[b, j] = t * c * u + c * v
        if not moved:
            break
