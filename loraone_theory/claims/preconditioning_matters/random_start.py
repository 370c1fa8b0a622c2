"""From a random start, and not near a solution, the steps know no condition number."""

from __future__ import annotations

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    exponent,
    exponents,
    first_below,
    gaussian,
    population,
    spectrum,
)
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.until import Until

D, RANK, NEAR, STEPS, SLOPE = 20, 3, 1e-10, 800, 0.1
KAPPAS, ETA, LONGER = (1.0, 10.0, 100.0), 0.3, 0.9
REG = 1e-2


def _growth(draws: Draws, *, alternating: bool, damping: float = 0.0) -> Evidence:
    """Exponent in κ of the steps to ‖E‖_F ≤ 1e-10σ_r, σ₁ = 1, the same draws at every κ."""
    seeds = draws.seeds()
    start = Factors(
        gaussian(D, RANK, seeds, "A0") / D**0.5, gaussian(RANK, D, seeds, "B0") / D**0.5
    )
    taken = []
    for kappa in KAPPAS:
        of = population(D, D, spectrum(kappa, RANK) / kappa, seeds)
        run = simulate(
            of.problem, "p-lora-alternating" if alternating else "p-lora", rank=RANK,
            learning_rate=LONGER if alternating else ETA, damping=damping, steps=STEPS,
            initial=start, record=("error",), until=Until("error", NEAR / kappa),
        )  # fmt: skip
        taken.append(first_below(run["error"], NEAR / kappa))
    steps = np.array(taken)
    pairs = zip(KAPPAS, steps, strict=True)
    means = {f"mean steps at κ = {kappa:g}": float(row.mean()) for kappa, row in pairs}
    return exponent(exponents(KAPPAS, steps), 0.0, SLOPE, **means)


def _claim(id: str, title: str, name: str, eta: float, reg: float, *, alternating: bool) -> Claim:
    return Claim(
        id=id,
        title=title,
        reference=(
            "Jia, Wang, Peng, Feng, Meng, NeurIPS 2023, abstract: O(ln d/δ + ln d/ε) steps from "
            "general random initialisation"
        ),
        statement=f"From a random start {name} takes as many steps at every κ: exponent 0.",
        hypotheses=(
            "𝒜 = I, σ₁ = 1",
            "r = r*",
            "A₀ and B₀ with N(0, 1/d) entries, far from balanced",
        ),
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r, κ = {listed(KAPPAS)}, d = k = {D}, r = {RANK}, "
            f"η = {eta:g}; exponent ± {SLOPE:g}, which leaves room for the ln κ in the target."
        ),
        kind="value",
        measure=lambda draws: _growth(draws, alternating=alternating),
        mutant_statement=f"with {reg:g}·I added to the Gram matrices",
        mutant=lambda draws: _growth(draws, alternating=alternating, damping=reg),
        trials=10,
        smoke_trials=8,
    )


CLAIMS = (
    _claim(
        "preconditioning-matters/random-start",
        "ScaledGD from a random start",
        "ScaledGD",
        ETA,
        REG,
        alternating=False,
    ),
    _claim(
        "preconditioning-matters/random-start/alternating",
        "Alternating ScaledGD from a random start, at a longer step",
        "alternating ScaledGD",
        LONGER,
        REG,
        alternating=True,
    ),
)
