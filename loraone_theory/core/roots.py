"""Roots of positive semidefinite matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core.eigen import eigh


def psd_root(M: Tensor) -> Tensor:
    """The symmetric root of a positive semidefinite matrix (..., r, r).

    >>> psd_root(torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64)))
    tensor([[2., 0.],
            [0., 3.]], dtype=torch.float64)
    """
    # LAPACK refuses non-finite input; the NaN of a diverged run goes on as zeros and the gradient.
    values, vectors = eigh(torch.where(torch.isfinite(M), M, 0.0))
    return (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT
