"""LoRA of rank one on both layers of W₂W₁: how long a shift takes that neither reaches alone."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponents, first_below, gaussian, haar

N, ETA = 10, 0.4
ALPHAS, TIMES, LOOKS, HALF = (0.2, 0.1), 24.0, 400, 0.5
SLOPE, LESS = 0.1, 1.8


class Network(NamedTuple):
    """The pre-trained layers W₁, W₂ and the shift Δ of their product, each (draws, N, N)."""

    first: Tensor
    second: Tensor
    shift: Tensor


def _network(seeds: tuple[int, ...]) -> Network:
    """Layers of rank N/2, and a shift off the columns of W₂ and off the rows of W₁."""
    rows, columns = haar(N, N, seeds, "rows"), haar(N, N, seeds, "columns")
    half, size = N // 2, N**-0.5
    first = size * gaussian(N, half, seeds, "W1") @ rows[..., :half].mT
    second = size * columns[..., :half] @ gaussian(half, N, seeds, "W2")
    return Network(first, second, columns[..., -1:] @ rows[..., -1:].mT)


def _losses(of: Network, alpha: float, seeds: tuple[int, ...], steps: int, every: int) -> Tensor:
    """½‖(W₂ + b₂a₂ᵀ)(W₁ + b₁a₁ᵀ) − W₂W₁ − Δ‖² every so many steps, from entries αN(0, 1)/√n."""
    a1, b1, a2, b2 = (
        alpha * N**-0.5 * gaussian(N, 1, seeds, name) for name in ("a1", "b1", "a2", "b2")
    )
    wanted = of.second @ of.first + of.shift
    found = []
    for t in range(steps + 1):
        first, second = of.first + b1 @ a1.mT, of.second + b2 @ a2.mT
        E = second @ first - wanted
        if t % every == 0:
            found.append(E.square().sum((-2, -1)) / 2)
        G1, G2 = second.mT @ E, E @ first.mT
        b1, a1 = b1 - ETA * G1 @ a1, a1 - ETA * G1.mT @ b1
        b2, a2 = b2 - ETA * G2 @ a2, a2 - ETA * G2.mT @ b2
    return torch.stack(found)


@functools.lru_cache(maxsize=1)
def _times(seeds: tuple[int, ...]) -> np.ndarray:
    """When half of the loss is gone, for each α (rows); inf where it is not."""
    of, found = _network(seeds), []
    for alpha in ALPHAS:
        every = math.ceil(TIMES / (ETA * alpha**2) / LOOKS)
        losses = _losses(of, alpha, seeds, LOOKS * every, every)
        found.append(ETA * every * first_below(losses, HALF / 2))
    return np.array(found)


def _exponent(draws: Draws, *, promised: float) -> Evidence:
    """Exponent in α of that time."""
    found = _times(draws.seeds())
    arrived = np.isfinite(found[0]) & np.isfinite(found[1])
    numbers = {
        f"median of α² times the time, α = {a:g}": float(np.median(a**2 * row))
        for a, row in zip(ALPHAS, found, strict=True)
    }
    numbers["share that arrives"] = float(arrived.mean())
    return Evidence(exponents(ALPHAS, found), promised, arrived, SLOPE, numbers=numbers)


CLAIMS = (
    Claim(
        id="gradient-flow/two-layers",
        title="A shift off both layers' own spaces takes a time of order α⁻²",
        reference=(
            "derivations, neighbours 6. Z. Xu and others, arXiv 2503.06982, abstract, relate the "
            "final error to the size of the start: their setting and theorem were not read, and "
            "are not judged"
        ),
        statement=(
            "LoRA of rank one on both layers of W₂W₁, uᵀW₂ = 0 and W₁v = 0: half of the loss of "
            "Δ = uvᵀ is gone after a time of order α⁻²: exponent −2."
        ),
        hypotheses=(
            "W₁, W₂ of rank n/2: a Gaussian matrix of variance 1/n times half of a Haar frame",
            "Δ = uvᵀ, uᵀW₂ = 0, W₁v = 0",
            f"it is gone within {TIMES:g}/α²",
        ),
        how=(
            f"Gaussian factors of standard deviation α/√n, the same directions at "
            f"α = {listed(ALPHAS)}, n = {N}, descent with η = {ETA:g}; exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _exponent(draws, promised=-2.0),
        mutant_statement=f"exponent −{LESS:g}",
        mutant=lambda draws: _exponent(draws, promised=-LESS),
        trials=80,
        smoke_trials=48,
        explanation=(
            "A run that is stopped at a fixed time ends at the whole loss for small α, and looks "
            "as if it were stuck: α sets the time, and the error only through it."
        ),
        derivation="neighbours 6",
    ),
)
