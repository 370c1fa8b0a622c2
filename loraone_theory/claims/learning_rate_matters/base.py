"""Problems with a W of a given spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loraone_theory.claims.population import haar, spectrum
from loraone_theory.core.factors import Factors

D, RANK, KAPPA, TOP = 24, 4, 4.0, 4.0


def parts(seeds: Sequence[int], size: float = 1.0) -> tuple[Factors, Tensor]:
    """Δ of rank 4 with σ₁ = `size`, and W with singular values 4/√i, Haar frames."""
    S = size * spectrum(KAPPA, RANK) / KAPPA
    shift = Factors(haar(D, RANK, seeds, "U") * S, haar(D, RANK, seeds, "V").mT)
    values = TOP / torch.arange(1, D + 1, dtype=torch.float64).sqrt()
    return shift, haar(D, D, seeds, "left") * values @ haar(D, D, seeds, "right").mT
