"""Online gradient descent of the linear model at a cost that depends on none of d, k and b.

With fresh isotropic Gaussian rows only Gram matrices matter: of A its part A₁ = UᵀA and the Gram
matrix of the rest, of B the same on the right, and of a batch that of the few columns that meet A
or B. What a step adds outside is a Gaussian matrix times a small one. Of each a Bartlett factor
has the law of the Gram matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from loraone_theory.core import validate
from loraone_theory.core.randomness import bartlett, generator
from loraone_theory.problems.linear.sampling import spectrum_values


class Online(NamedTuple):
    """What is recorded, (recorded steps, seeds) each.

    Args:
        steps: t = 0, every, 2·every, …
        risk: ½‖AB − Δ‖_F².
        size: ‖A‖_F.
        aligned: ‖UᵀA‖_F.
    """

    steps: np.ndarray
    risk: np.ndarray
    size: np.ndarray
    aligned: np.ndarray


def simulate_online(
    *,
    d: int,
    k: int,
    rank: int,
    true_rank: int,
    batch: int,
    learning_rate: float,
    steps: int,
    init_std: float = 1e-2,
    noise_std: float = 0.0,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    every: int = 1,
    seeds: Sequence[int] = (0,),
) -> Online:
    """Gradient descent from LoRA-init on `batch` fresh rows x ~ N(0, I_d) a step, exact in law.

    A step costs O(r³) whatever d, k and b are.

    Args:
        d: input width.
        k: output width.
        rank: r <= d − r*.
        true_rank: r*, with r* + r <= d.
        batch: b, fresh rows a step.
        learning_rate: η > 0.
        steps: T.
        init_std: α of A₀.
        noise_std: σ of the labels.
        spectrum: λ*, as in `sample_linear`.
        condition_number: κ of the default spectrum.
        every: record once in so many steps.
        seeds: one run per seed.

    Raises:
        ValueError: an argument that breaks a rule above.

    Reference: docs/derivations_sensing.md, section 6.2.

    >>> run = simulate_online(d=10**9, k=10**9, rank=2, true_rank=1, batch=4,
    ...                       learning_rate=1e-10, steps=2)
    >>> run.risk.shape
    (3, 1)
    """
    validate.rank(true_rank, d=d, k=k, name="true_rank")
    validate.rank(rank, d=d, k=k)
    if rank + true_rank > d:
        raise ValueError(
            f"rank + true_rank must be at most d; got {rank} + {true_rank} with d={d}; "
            "use simulate with fresh rows"
        )
    batch = validate.integer("batch", batch, least=1)
    steps = validate.integer("steps", steps, least=1)
    every = validate.integer("every", every, least=1)
    rate = validate.number("learning_rate", learning_rate, positive=True)
    alpha = validate.number("init_std", init_std, positive=True)
    sigma = validate.number("noise_std", noise_std)
    values = spectrum_values(true_rank, spectrum, condition_number)
    runs = [
        _run(generator(seed, "online"), d, k, rank, values, batch, rate, steps, alpha, sigma, every)
        for seed in validate.seeds(seeds)
    ]
    recorded = np.arange(0, steps + 1, every)
    return Online(recorded, *np.moveaxis(np.stack(runs), 0, -1))


def _run(
    rng: np.random.Generator,
    d: int,
    k: int,
    r: int,
    spectrum: np.ndarray,
    b: int,
    rate: float,
    steps: int,
    alpha: float,
    sigma: float,
    every: int,
) -> np.ndarray:
    """Records (3, recorded steps) of one run: risk, ‖A‖, ‖UᵀA‖."""
    true = len(spectrum)
    S = np.diag(spectrum)
    A1, A2 = alpha * rng.standard_normal((true, r)), alpha * bartlett(rng, d - true, r)
    B1, B2 = np.zeros((r, true)), np.zeros((r, 0))
    found = [_measures(A1, A2, B1, B2, S)]
    for t in range(1, steps + 1):
        # 1. What the b rows are along U and along the columns of A outside U, what their noise is
        #    along V and along the rows of B outside V: by the factor of their Gram matrix.
        widths = (true, len(A2), true, B2.shape[1]) if sigma > 0 else (true, len(A2), 0, 0)
        X1, X2, Z1, Z2 = np.split(bartlett(rng, b, sum(widths)), np.cumsum(widths)[:-1], axis=1)
        XA = X1 @ A1 + X2 @ A2
        # 2. Residuals in the columns of V and in those that B has beside.
        W1, W2 = XA @ B1 - X1 @ S, XA @ B2
        if sigma > 0:
            W1, W2 = W1 - sigma * Z1, W2 - sigma * Z2
        pulled = rate / b * (W1 @ B1.T + W2 @ B2.T)
        # 3. Both gradients from time-t values; the parts outside are known up to a rotation.
        beyond = _unseen(rng, d - true - len(A2), pulled)
        grown = sigma * rate / b * _unseen(rng, k - true - B2.shape[1], XA) if sigma > 0 else None
        A1, A2 = A1 - X1.T @ pulled, _upper(np.vstack([A2 - X2.T @ pulled, beyond]))
        B1, B2 = B1 - rate / b * XA.T @ W1, B2 - rate / b * XA.T @ W2
        if grown is not None:
            B2 = _upper(np.vstack([B2.T, grown])).T
        if t % every == 0:
            found.append(_measures(A1, A2, B1, B2, S))
    return np.array(found).T


def _unseen(rng: np.random.Generator, p: int, M: np.ndarray) -> np.ndarray:
    """A factor of MᵀGᵀGM for a fresh Gaussian G (p, b) and M (b, r), of at most r rows."""
    R = np.linalg.qr(M).R
    return bartlett(rng, p, len(R)) @ R


def _upper(M: np.ndarray) -> np.ndarray:
    """A matrix with M's Gram matrix and at most as many rows as columns."""
    return M if M.shape[0] <= M.shape[1] else np.linalg.qr(M).R


def _measures(
    A1: np.ndarray, A2: np.ndarray, B1: np.ndarray, B2: np.ndarray, S: np.ndarray
) -> tuple[float, float, float]:
    blocks = (A1 @ B1 - S, A1 @ B2, A2 @ B1, A2 @ B2)
    risk = 0.5 * sum(float((M * M).sum()) for M in blocks)
    aligned, rest = (float((M * M).sum()) for M in (A1, A2))
    return risk, (aligned + rest) ** 0.5, aligned**0.5
