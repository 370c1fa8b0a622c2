"""Inputs of covariance Σ = I but for a few spikes, sampled exactly in law in O(dq²).

In a basis that begins with the s spikes and goes on with the rest of span(U), q = s + r* directions
in all, Householder reflections of the rows of X and of the other d − q directions make it banded:
C√N has the diagonal χ_N, χ_{N−1}, …, N(0, 1) on the q − 1 diagonals above, and χ_{d−q}, χ_{d−q−1},
… on the q-th. Scaling its first s columns by the roots of the spikes makes it Σ^{1/2}'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.randomness import bartlett, per_seed
from loraone_theory.problems.linear.banded import Banded
from loraone_theory.problems.linear.covariance import Diagonal


def spike_values(spikes: Sequence[float], d: int) -> np.ndarray:
    """The eigenvalues of Σ beside ones, s < d positive numbers.

    Raises:
        TypeError, ValueError: other values, or too many.
    """
    given = validate.numbers("spikes", list(validate.sequence("spikes", spikes)), positive=True)
    if not 0 < len(given) < d:
        raise ValueError(
            f"spikes must hold between 1 and d - 1 eigenvalues; got {len(given)} with d={d}; leave "
            "it out for Σ = I, or give all of Σ to sample_linear as covariance"
        )
    return np.array(given)


def sample_spiked(
    spikes: np.ndarray, d: int, true_rank: int, samples: int, seeds: Sequence[int], like: Tensor
) -> tuple[Banded, Tensor, Diagonal]:
    """Σ̂ (n, d, d), the frame U (n, d, r*) and Σ, in a basis where Σ is diagonal."""
    s = len(spikes)
    q = min(s + true_rank, d)

    def factor(rng: np.random.Generator) -> np.ndarray:
        return band_factor(rng, samples, d, q)

    C = per_seed(factor, seeds, "band factor", like) / samples**0.5
    roots = torch.from_numpy(spikes**0.5).to(like)
    for column in range(s):
        for o in range(column + 1):
            C[..., o, column - o] *= roots[column]

    def frame(rng: np.random.Generator) -> np.ndarray:
        top, below = rng.standard_normal((s, true_rank)), bartlett(rng, d - s, true_rank)
        Q, R = np.linalg.qr(np.vstack([top, below]))
        return Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)

    U = per_seed(frame, seeds, "left frame", like)
    U = torch.nn.functional.pad(U, (0, 0, 0, d - U.shape[-2]))
    values = torch.nn.functional.pad(roots**2, (0, d - s), value=1.0)
    return Banded.from_factor(C), U, Diagonal(values)


def band_factor(rng: np.random.Generator, N: int, d: int, q: int) -> np.ndarray:
    """The diagonals (q + 1, d) of C√N for a Gaussian X = PCQᵀ√N with the first q directions fixed.

    Column block by column block: P takes q columns to an upper triangle, with χ_N, χ_{N−1}, … and
    Gaussians above; Q takes what the same rows have to their right to a lower triangle, with
    χ_{d−q}, χ_{d−q−1}, … and Gaussians below. All of it lies within q of the diagonal.

    >>> band_factor(np.random.default_rng(0), 50, 6, 2).shape
    (3, 6)
    """
    height = min(N, d)
    C = np.zeros((q + 1, d))
    C[1:q, :height] = rng.standard_normal((q - 1, height))
    C[0, :height] = np.sqrt(rng.chisquare(N - np.arange(height)))
    last = min(height, d - q)
    C[q, :last] = np.sqrt(rng.chisquare(d - q - np.arange(last)))
    for o in range(1, q):
        C[o, d - o :] = 0
    return C
