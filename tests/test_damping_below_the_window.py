"""PrecGD damped by ‖E‖²: what docs/derivations_neighbours.md, 2, says of its rounding."""

from collections.abc import Callable

import numpy as np
import pytest

Divide = Callable[[np.ndarray, np.ndarray], np.ndarray]


def inverted(M: np.ndarray) -> np.ndarray:
    """By Gauss-Jordan elimination with pivots, in any type of numbers."""
    n = len(M)
    both = np.concatenate([M, np.eye(n, dtype=M.dtype)], 1)
    for i in range(n):
        pivot = i + int(abs(both[i:, i]).argmax())
        both[[i, pivot]] = both[[pivot, i]]
        both[i] /= both[i, i]
        column = both[:, i : i + 1].copy()
        column[i] = 0
        both -= column * both[i]
    return both[:, n:]


def by_inverse(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    return right @ np.linalg.inv(gram)


def by_elimination(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.linalg.solve(gram, right.T).T


def by_long_inverse(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    return right @ inverted(gram)


ARRIVED = 1e-10  # of σ_r


def arrivals(largest: float, kappa: float, divide: Divide, dtype: type = np.float64) -> int:
    """X⁺ = X − ηEX(XᵀX + ‖E‖²I)⁻¹ to ‖E‖ <= 1e-10σ_r in 100 steps, how many of 40 draws.

    n = 20, r* = 2, r = 4, η = ½, from 0.1√σ_r off; σ₁ = `largest`.
    """
    count, S = 0, np.array([largest, largest / kappa])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        U = np.linalg.qr(rng.standard_normal((20, 2)))[0]
        move = rng.standard_normal((20, 4))
        X = 0.1 * S[-1] ** 0.5 * move / np.linalg.norm(move)
        X[:, :2] += U * S**0.5
        X, M = X.astype(dtype), ((U * S) @ U.T).astype(dtype)
        for _ in range(100):
            E = X @ X.T - M
            square = (E * E).sum()
            if square <= (ARRIVED * S[-1]) ** 2:
                count += 1
                break
            try:
                X = X - divide(X.T @ X + square * np.eye(4, dtype=dtype), E @ X) / 2
            except np.linalg.LinAlgError:
                break
    return count


@pytest.mark.parametrize("kappa", [100.0, 1000.0])
def test_it_is_the_inverse_that_a_damping_below_the_window_breaks(kappa: float) -> None:
    """Halves of 40 draws: which ones arrive is up to rounding, that most or few do is not."""
    assert arrivals(1.0, kappa, by_inverse) < 20 < arrivals(1.0, kappa, by_elimination)
    assert arrivals(kappa, kappa, by_inverse) == arrivals(kappa, kappa, by_elimination) == 40


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no longer numbers here")
def test_longer_numbers_invert_it() -> None:
    assert arrivals(1.0, 1000.0, by_long_inverse, np.longdouble) == 40
