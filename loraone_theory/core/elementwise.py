"""Functions of entries whose last bit does not depend on where in a tensor an entry stands.

torch works through a tensor in vectors and gives what is left at its end to another routine, which
rounds differently. A run and the same run in two pieces measure tensors of different lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

VECTORS = 64  # a multiple of all lengths that are worked on at once


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of (x, y) in (−π, π], entry by entry.

    >>> y = torch.linspace(0.1, 1.0, 100)
    >>> bool((atan2(y, y + 1)[90:] == atan2(y[90:], y[90:] + 1)).all())
    True
    """
    return _padded(torch.atan2, y, x)


def hypot(y: Tensor, x: Tensor) -> Tensor:
    """√(x² + y²) without overflow, entry by entry."""
    return _padded(torch.hypot, y, x)


def _padded(function: Callable[[Tensor, Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
    y, x = torch.broadcast_tensors(y, x)
    missing = -y.numel() % (VECTORS * torch.get_num_threads())
    if y.is_cuda or (missing == 0 and y.is_contiguous() and x.is_contiguous()):
        return function(y, x)
    flat = (torch.nn.functional.pad(M.reshape(-1), (0, missing), value=1.0) for M in (y, x))
    return function(*flat)[: y.numel()].reshape(y.shape)
