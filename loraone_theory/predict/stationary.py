"""What counts as a solution: where the gradient vanishes, and the loss is not at a saddle."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.predict.tangent_map import TangentMap

# Factors count as a solution where the gradient is at most this share of ‖Σ̂‖‖T‖(‖A‖ + ‖B‖).
STATIONARY = 1e-3


def refuse_saddle(interpolates: bool, tangent: TangentMap) -> None:
    """Refuse rank-deficient factors at which a residual stays."""
    rank = tangent.A.shape[-1]
    if not interpolates and min(tangent.ranks) < rank:
        raise ValueError(
            "where a residual stays a solution has factors of full rank; got ranks "
            f"{tangent.ranks} of A and B with rank={rank}; this is a saddle of the loss"
        )


def refuse_moving(gradient: Factors, at: Factors, scale: Tensor) -> None:
    """Refuse factors at which the gradient is more than STATIONARY of ‖M‖(‖A‖ + ‖B‖)."""
    norm = torch.linalg.matrix_norm
    size = (norm(gradient.A) ** 2 + norm(gradient.B) ** 2).sqrt()
    share = size / (scale * (norm(at.A) + norm(at.B)))
    if not bool((share <= STATIONARY).all()):
        raise ValueError(
            f"a solution is stationary: its gradient is at most {STATIONARY:g} of its scale; got "
            f"{float(share.max()):.2g}; run longer, or pass the factors a run ended with"
        )
