"""Powers of two that bring tensors to the middle of the range of floats, without rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_one(M: Tensor) -> Tensor:
    """M (..., a, b) times powers of two, so that squares of entries are within range.

    Where they are, M may stay what it is; matrices that are not finite become zero.

    >>> M = to_one(torch.tensor([[3e38, 1e30]]))
    >>> bool(M.square().sum().isfinite()), bool(M[0, 0] / M[0, 1] == 3e8)
    (True, True)
    """
    size = torch.linalg.vector_norm(M.detach(), math.inf, (-2, -1), keepdim=True)
    kind = torch.finfo(M.dtype)
    # Squares of what is eps times smaller are normal numbers, and so is a sum of many of them.
    ordinary = (size > kind.tiny**0.5 / kind.eps) & (size < kind.max**0.5 * kind.eps)
    if bool(ordinary.all()):
        return M
    M = torch.where(torch.isfinite(size), M, 0.0)
    return torch.where(ordinary, M, times(M, -exponent(size)))


def exponent(size: Tensor) -> Tensor:
    """e with 2^{e−1} <= size < 2^e, as near as 2^e and 2^{−e} are normal numbers; int.

    0 where `size` is zero or not finite.
    """
    size = size.detach()
    found = torch.frexp(torch.where(torch.isfinite(size), size, 0.0)).exponent
    most = 1022 if size.dtype == torch.float64 else 126
    return found.clamp(-most, most)


def times(M: Tensor, e: Tensor) -> Tensor:
    """M·2^e for the exponents of `exponent`, or their negatives, that broadcast."""
    # 2^e by its bits: what exp2 rounds need not be a power of two.
    if M.dtype == torch.float64:
        return M * ((e.long() + 1023) << 52).view(M.dtype)
    return M * ((e.int() + 127) << 23).view(M.dtype)
