"""When singular values arrive."""

from __future__ import annotations

import torch
from torch import Tensor


def arrivals(values: Tensor, targets: Tensor, eta: float, share: float) -> Tensor:
    """First time at which values (T, n, r) are at share·targets (r,); inf where never: (n, r)."""
    there = values >= share * targets
    return torch.where(there.any(0), eta * there.int().argmax(0).double(), torch.inf)
