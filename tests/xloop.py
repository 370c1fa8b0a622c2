"""A longhand X-based loop in numpy: the paper's Eq. 4 and Eq. 9 with X, W and Y as matrices.

It shares no code with the package. `W_f` is the frozen weight; the learned weight is W_f + sAB.
"""

from collections.abc import Iterator

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def full_gradient(X: np.ndarray, Y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return X.T @ (X @ weight - Y) / len(X)


def pseudo_inverse(M: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(M, rcond=len(M) * np.finfo(M.dtype).eps, hermitian=True)


def pair_loop(
    X: np.ndarray,
    Y: np.ndarray,
    W_f: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    *,
    eta: float,
    steps: int,
    s: float = 1.0,
    ratio: float = 1.0,
    preconditioned: bool = False,
    damping: float = 0.0,
) -> Iterator[Pair]:
    """Yield (A_t, B_t) for t = 0 … steps."""
    r = A.shape[1]
    yield A, B
    for _ in range(steps):
        grad = full_gradient(X, Y, W_f + s * A @ B)
        grad_A, grad_B = s * grad @ B.T, s * A.T @ grad
        if preconditioned and damping:
            grad_A = grad_A @ np.linalg.inv(B @ B.T + damping * np.eye(r))
            grad_B = np.linalg.inv(A.T @ A + damping * np.eye(r)) @ grad_B
        elif preconditioned:
            grad_A = grad_A @ pseudo_inverse(B @ B.T)
            grad_B = pseudo_inverse(A.T @ A) @ grad_B
        A, B = A - eta * grad_A, B - ratio * eta * grad_B
        yield A, B


def full_loop(X: np.ndarray, Y: np.ndarray, W: np.ndarray, *, eta: float, steps: int) -> np.ndarray:
    weight = W.copy()
    for _ in range(steps):
        weight = weight - eta * full_gradient(X, Y, weight)
    return weight


def core_loop(
    X: np.ndarray,
    Y: np.ndarray,
    W: np.ndarray,
    A: np.ndarray,
    R: np.ndarray,
    B: np.ndarray,
    *,
    eta: float,
    steps: int,
    s: float = 1.0,
) -> np.ndarray:
    for _ in range(steps):
        grad = full_gradient(X, Y, W + s * A @ R @ B)
        R = R - eta * s * A.T @ grad @ B.T
    return R
