"""Random draws: one seed per trial, drawn on the CPU in float64, then cast and moved.

A draw depends on its seed and its stream's name alone. Trial i therefore gets the same numbers
whatever else is in the batch, whatever the dtype and the device, and an instance and an
initialisation that share a seed are still independent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, stream: str) -> np.random.Generator:
    """A generator of its own for every pair of seed (>= 0) and stream name."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode())])


def torch_seed(seed: int, stream: str) -> int:
    """A seed for torch's own generators, derived from the same pair."""
    return int(generator(seed, stream).integers(2**62))


def per_seed(
    draw: Callable[[np.random.Generator], np.ndarray],
    seeds: Sequence[int],
    stream: str,
    like: Tensor,
) -> Tensor:
    """Stack one draw per seed: shape (len(seeds), ...), with the dtype and device of `like`."""
    draws = np.stack([draw(generator(seed, stream)) for seed in seeds])
    return torch.from_numpy(draws).to(dtype=like.dtype, device=like.device)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """I.i.d. N(0, 1) entries."""
    return rng.standard_normal(shape)


def haar_frame(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
    """A Haar-distributed orthonormal frame (n, p), p <= n.

    QR of a Gaussian matrix, with the signs of R's diagonal moved into Q (without them the law is
    not Haar).

    >>> Q = haar_frame(generator(0, "doc"), 5, 2)
    >>> bool(np.allclose(Q.T @ Q, np.eye(2)))
    True
    """
    Q, R = np.linalg.qr(rng.standard_normal((n, p)))
    return Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)


def bartlett(rng: np.random.Generator, p: int, b: int) -> np.ndarray:
    """R (min(p, b), b) with RᵀR of the law of GᵀG for a Gaussian G (p, b).

    Upper triangular with diagonal χ_p, χ_{p−1}, … and N(0, 1) above; G itself where p < b.

    >>> bartlett(np.random.default_rng(0), 10**9, 3).shape
    (3, 3)
    """
    if p < b:
        return rng.standard_normal((max(p, 0), b))
    R = np.triu(rng.standard_normal((b, b)), 1)
    R[np.diag_indices(b)] = np.sqrt(rng.chisquare(p - np.arange(b)))
    return R
