"""ScaledGD(λ) beyond the true rank: steps of order ln κ, and the sublinear end of its run."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    exponents,
    first_below,
    gaussian,
    spectrum,
    started,
    symmetric_population,
)
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.until import Until
from loraone_theory.methods.symmetric import symmetric_preconditioned

N, TRUE_RANK, RANK, ETA, DAMPING = 20, 3, 6, 0.3, 0.05
KAPPAS, STD, NEAR, STEPS = (10.0, 100.0, 1000.0), 1e-3, 1e-3, 300
# Of a + b ln κ with a, b >= 0: it is largest at a = 0.
MOST = float(exponents(KAPPAS, np.log(KAPPAS)[:, None])[0])
ROOT = 0.5
LARGE, LATE, ALLOWED = 0.1, 2000, 0.02
FLAT, SMALL, EARLY = 2.0, 1e-4, 200


def _steps(draws: Draws, *, power: float) -> Evidence:
    """Exponent in κ of the steps to ‖E‖_F ≤ 1e-3σ_r, σ_r = 1, λ ∝ κ^power."""
    taken = []
    for kappa in KAPPAS:
        seeds = draws.seeds()
        of = symmetric_population(N, spectrum(kappa, TRUE_RANK), seeds)
        X = STD * gaussian(N, RANK, seeds, "X0") / (N * kappa) ** 0.5
        run = simulate(
            of.problem, started(symmetric_preconditioned(), X), rank=RANK, learning_rate=ETA,
            damping=DAMPING * kappa**power, steps=STEPS, record=("error",),
            until=Until("error", NEAR),
        )  # fmt: skip
        taken.append(first_below(run["error"], NEAR))
    steps = np.array(taken)
    pairs = zip(KAPPAS, steps, strict=True)
    means = {f"mean steps at κ = {k:g}": float(row.mean()) for k, row in pairs}
    return Evidence(exponents(KAPPAS, steps), MOST, numbers=means)


def _end(draws: Draws, *, more: int) -> Evidence:
    """2ηt‖E_t‖_F/(λ√(r − r* + more))."""
    seeds = draws.seeds()
    of = symmetric_population(N, spectrum(FLAT, TRUE_RANK), seeds)
    X = LARGE * gaussian(N, RANK, seeds, "X0")
    run = simulate(
        of.problem, started(symmetric_preconditioned(), X), rank=RANK, learning_rate=ETA,
        damping=DAMPING, steps=LATE, every=LATE, record=("error",),
    )  # fmt: skip
    law = DAMPING * (RANK - TRUE_RANK + more) ** 0.5 / (2 * ETA * LATE)
    return Evidence((run["error"][-1] / law).numpy(), 1.0, tolerance=ALLOWED)


def _floor(draws: Draws, *, projected: bool) -> Evidence:
    """‖E‖_F over ‖ZZᵀ‖_F, Z = U_⊥U_⊥ᵀX₀Q."""
    seeds = draws.seeds()
    of = symmetric_population(N, spectrum(FLAT, TRUE_RANK), seeds)
    X = SMALL * gaussian(N, RANK, seeds, "X0") / N**0.5
    run = simulate(
        of.problem, started(symmetric_preconditioned(), X), rank=RANK, learning_rate=ETA,
        damping=DAMPING, steps=EARLY, every=EARLY, record=("error",),
    )  # fmt: skip
    Z = X - of.U @ (of.U.mT @ X)
    if projected:
        Z = Z @ torch.linalg.svd(of.U.mT @ X)[2][..., TRUE_RANK:, :].mT
    ratio = run["error"][-1] / torch.linalg.matrix_norm(Z @ Z.mT)
    return Evidence(ratio.numpy(), 1.0, tolerance=ALLOWED)


SIZES = f"n = {N}, r* = {TRUE_RANK}, r = {RANK}, η = {ETA:g}, λ = {DAMPING:g}σ_r"
CLAIMS = (
    Claim(
        id="scaled-gd-lambda/condition-number",
        title="From a small start the steps grow as ln κ",
        reference=(
            "Xu, Shen, Chi, Ma, arXiv 2302.01186, abstract: T of order ln κ ln κn + ln 1/ε, "
            "constants not read; that one logarithm is enough is derivations, neighbours 7"
        ),
        statement=(
            "Steps to a fixed ‖E‖_F/σ_r grow no faster than ln κ: their exponent in κ is at most "
            "that of a + b ln κ with a, b ≥ 0."
        ),
        hypotheses=("𝒜 = I, symmetric", "r ≥ r*", "λ of the order of σ_r", "X₀ = αN/√(nκ)"),
        how=(
            f"To ‖E‖_F ≤ {NEAR:g}σ_r, κ = {listed(KAPPAS)}, α = {STD:g}; {SIZES}; the bar is the "
            f"slope of ln ln κ in ln κ over these, {MOST:.3g}."
        ),
        kind="bound",
        measure=lambda draws: _steps(draws, power=0.0),
        mutant_statement="λ of the order of √(σ₁σ_r)",
        mutant=lambda draws: _steps(draws, power=ROOT),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 7",
    ),
    Claim(
        id="scaled-gd-lambda/end",
        title="A fixed damping ends sublinearly",
        reference="derivations, neighbours 7",
        statement="r > r*: ‖E_t‖_F → λ√(r − r*)/(2ηt), unless the start is smaller than that.",
        hypotheses=("𝒜 = I, symmetric", "r > r*", "t ≫ λ/(ηq₀²), q₀ the start off the signal"),
        how=f"At t = {LATE}, X₀ of entries {LARGE:g}N; {SIZES}; ± {ALLOWED:g}.",
        kind="identity",
        measure=lambda draws: _end(draws, more=0),
        mutant_statement="√(r − r* + 1)",
        mutant=lambda draws: _end(draws, more=1),
        trials=10,
        smoke_trials=2,
        derivation="neighbours 7",
        uses=("prec-gd/rate/surplus",),
    ),
    Claim(
        id="scaled-gd-lambda/floor",
        title="A start smaller than that stays as it is, off the signal",
        reference=(
            "derivations, neighbours 7; that the linear phase ends at a power of α is in the "
            "abstract of arXiv 2302.01186, its exponent is not"
        ),
        statement=(
            "r > r* and α² ≪ λ/(ηt): ‖E_t‖_F → ‖ZZᵀ‖_F, Z = U_⊥U_⊥ᵀX₀Q, Q the null space of "
            "UᵀX₀: linear down to an error of order α² only."
        ),
        hypotheses=("𝒜 = I, symmetric", "r > r*", "the signal has been found: ηt ≫ ln(1/α)"),
        how=(
            f"At t = {EARLY}, X₀ = αN/√n with α = {SMALL:g}, κ = {FLAT:g}; {SIZES}; ± {ALLOWED:g}."
        ),
        kind="identity",
        measure=lambda draws: _floor(draws, projected=True),
        mutant_statement="Q left out",
        mutant=lambda draws: _floor(draws, projected=False),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 7",
        uses=("small-initialisation/plateau",),
    ),
)
