"""What longhand tests are written with: numbers of a seed, closeness, a loss and its gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from loraone_theory.core.factors import Params


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Independent N(0, 1) entries in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def close(found: torch.Tensor, expected: torch.Tensor, allowed: float) -> None:
    """Fail where they differ by more than `allowed`, absolutely and relatively together."""
    torch.testing.assert_close(found, expected, rtol=allowed, atol=allowed)


def quadratic(S: torch.Tensor, T: torch.Tensor) -> Callable[[Params], Params]:
    """Gradients of ½tr((AB − T)ᵀS(AB − T))."""

    def gradients(params: Params) -> Params:
        A, B = params
        J = S @ (A @ B - T)
        return J @ B.mT, A.mT @ J

    return gradients
