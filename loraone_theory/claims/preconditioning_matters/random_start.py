"""From a random start, and not near a solution, the steps know no condition number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
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
MOST, FEW = 0.9, 24


def _growth(draws: Draws, *, alternating: bool, damping: float = 0.0) -> Evidence:
    """|exponent| in κ of the steps to ‖E‖_F ≤ 1e-10σ_r, σ₁ = 1, the same draws at every κ.

    Infinite where a run does not arrive.
    """
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
    found = exponents(KAPPAS, steps)
    pairs = zip(KAPPAS, steps, strict=True)
    numbers = {f"median steps at κ = {kappa:g}": float(np.median(row)) for kappa, row in pairs}
    numbers["share that arrives at every κ"] = float(np.isfinite(steps).all(0).mean())
    size = np.where(np.isfinite(found), np.abs(found), np.inf)
    return Evidence(size, SLOPE, probability=MOST, numbers=numbers)


def _claim(
    id: str, title: str, name: str, eta: float, reg: float, explanation: str, *, alternating: bool
) -> Claim:
    return Claim(
        id=id,
        title=title,
        reference=(
            "Jia, Wang, Peng, Feng, Meng, NeurIPS 2023, abstract: O(ln d/δ + ln d/ε) steps from "
            "general random initialisation"
        ),
        statement=(
            f"From a random start {name} takes as many steps at every κ, exponent 0, with "
            f"probability {MOST:g} at least."
        ),
        hypotheses=(
            "𝒜 = I, σ₁ = 1",
            "r = r*",
            "A₀ and B₀ with N(0, 1/d) entries, far from balanced",
        ),
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r, κ = {listed(KAPPAS)}, d = k = {D}, r = {RANK}, "
            f"η = {eta:g}; exponent ± {SLOPE:g} in each draw: room for the ln κ in the target."
        ),
        kind="probability",
        measure=lambda draws: _growth(draws, alternating=alternating),
        mutant_statement=f"with {reg:g}·I added to the Gram matrices",
        mutant=lambda draws: _growth(
            replace(draws, trials=min(draws.trials, FEW)), alternating=alternating, damping=reg
        ),
        trials=256,
        smoke_trials=64,
        explanation=explanation,
        uses=("apgd/rate" if alternating else "scaled-gd/factorisation/edge",),
    )


CLAIMS = (
    _claim(
        "preconditioning-matters/random-start",
        "ScaledGD from a random start",
        "ScaledGD",
        ETA,
        REG,
        "On about one draw in two hundred simultaneous steps never settle: the error swings "
        "between one and hundreds for good. The paper's δ leaves room for that.",
        alternating=False,
    ),
    _claim(
        "preconditioning-matters/random-start/alternating",
        "Alternating ScaledGD from a random start, at a longer step",
        "alternating ScaledGD",
        LONGER,
        REG,
        "",
        alternating=True,
    ),
)
