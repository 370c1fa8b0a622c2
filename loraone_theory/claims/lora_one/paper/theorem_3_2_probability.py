"""T3.2: how the probability of not aligning in time falls with r."""

from __future__ import annotations

import math

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.lora_one.paper.base import THETA
from loraone_theory.core.randomness import generator, normal

# With r* = 2 the least singular value of U(G)ᵀA₀ is a formula, so that a draw is 10⁵ starts.
TRUE_RANK, RANKS, WIDTH, STARTS, SMALL = 2, (4, 5, 6, 7, 8), 10_000, 200_000, 50_000
# The time, in units of ln(√d/θ)/ln(1+ηλ), and the exponent of the mutant.
TIME, STEEPER = 1.2, 1.5


def failures(rank: int, starts: int, seed: int) -> float:
    """Share of starts not aligned to θ by t = TIME ln(√d/θ)/ln(1+ηλ), at N = ∞ and κ = 1.

    Off U(G) A₀ stays as it is, ‖U_⊥ᵀA₀ ‖ → √d, and on U(G) it grows to ½(1+ηλ)ᵗ U(G)ᵀA₀: the
    tangent is 2√d(1+ηλ)^{−t}/σ_min(U(G)ᵀA₀), and the start fails where that exceeds θ.
    """
    M = normal(generator(seed, f"probability, {rank}"), starts, TRUE_RANK, rank)
    first, second = (M**2).sum(-1).T
    cross = (M[:, 0] * M[:, 1]).sum(-1)
    least = (first + second) / 2 - np.hypot((first - second) / 2, cross)
    allowed = 2 * (math.sqrt(WIDTH) / THETA) ** (1 - TIME)
    return float((least < allowed**2).mean())


def _falls(draws: Draws, *, exponent: float) -> Evidence:
    """P(r)/P(2r*) over exp(−exponent (r − 2r*)), r > 2r*, for each draw of `STARTS` starts."""
    starts = SMALL if draws.smoke else STARTS
    shares = np.array([[failures(rank, starts, seed) for rank in RANKS] for seed in draws.seeds()])
    ratio = shares[:, 1:] / shares[:, :1] * np.exp(exponent * (np.array(RANKS[1:]) - RANKS[0]))
    means = dict(zip(RANKS, shares.mean(0).tolist(), strict=True))
    for rank in range(TRUE_RANK, RANKS[0]):
        means[rank] = failures(rank, starts, draws.seeds()[0])
    numbers = {f"share of failures at r = {rank}": means[rank] for rank in sorted(means)}
    for rank in RANKS:
        numbers[f"the same times e^r, r = {rank}"] = means[rank] * math.exp(rank)
    return Evidence(ratio.ravel(), 1.0, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/theorem-3.2/probability-in-r",
        title="The probability of failure falls faster than e^{−r}",
        reference="Theorem 3.2: probability 1 − C₁e^{−d} − C₂e^{−r} − C₃e^{−N}",
        statement=(
            "For r ≥ 2r* the part of A₀ in the probability of failure is at most C₂e^{−r}, with "
            "the C₂ that r = 2r* asks for; failure: not aligned to θ after a multiple of "
            "ln(√d/θ)/ln(1+ηλ) steps."
        ),
        hypotheses=("linear model", "LoRA-init, GD", "r ≥ 2r*", "N = ∞, κ = 1, α → 0"),
        how=(
            f"Closed form of the linearised dynamics at d = {WIDTH}, r* = {TRUE_RANK}, "
            f"r = {', '.join(map(str, RANKS))}, θ = {THETA:g}: {STARTS} starts a draw "
            f"({SMALL} in a smoke run), failed where the alignment after "
            f"{TIME:g} times the scale of the statement is above θ."
        ),
        kind="bound",
        measure=lambda draws: _falls(draws, exponent=1.0),
        mutant_statement=f"at most C₂e^{{−{STEEPER:g}r}}",
        mutant=lambda draws: _falls(draws, exponent=STEEPER),
        trials=8,
        smoke_trials=2,
        explanation=(
            "P(σ_min(UᵀA₀) < s) is of order s^{r−r*+1}: each further column of A₀ multiplies the "
            "failures by s times a constant. Below 2r* the same law holds with larger numbers, "
            "which the theorem's case r* ≤ r < 2r* allows for; there see "
            "lora-one/theorem-3.2/rank-below-twice. The time decides the constant: the closer it "
            "is to ln(√d/θ)/ln(1+ηλ), the larger C₂."
        ),
        derivation="3.6",
        uses=("lora-one/theorem-3.2/rank-below-twice",),
    ),
)
