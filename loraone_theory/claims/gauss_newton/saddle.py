"""Near the saddle at zero descent barely moves; one undamped sweep leaves it for good."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    EPS,
    condition,
    exponent,
    exponents,
    gaussian,
    population,
    spectrum,
)
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate

D, RANK, KAPPA, ETA = 12, 3, 5.0, 1.0
SIZES, DAMPING, SLOPE, POWER = (1e-3, 1e-4, 1e-5), 0.05, 0.1, 1.8


def _start(size: float, seeds: tuple[int, ...]) -> Factors:
    return Factors(size * gaussian(D, RANK, seeds, "A0"), size * gaussian(RANK, D, seeds, "B0"))


def _solved(draws: Draws, *, damping: float) -> Evidence:
    """‖E₁‖/‖Δ‖ after one sweep at η = 1, from starts of every size."""
    found, rounding = [], []
    for block, size in enumerate(SIZES):
        seeds = draws.seeds(block=block)
        of, start = population(D, D, spectrum(KAPPA, RANK) / KAPPA, seeds), _start(size, seeds)
        run = simulate(
            of.problem, "p-lora-alternating", rank=RANK, learning_rate=ETA, steps=1, initial=start,
            damping=damping / KAPPA, record=("error",),
        )  # fmt: skip
        norm = torch.linalg.matrix_norm(of.problem.shift.dense())
        found.append((run["error"][-1] / norm).numpy())
        # The A of the sweep is ΔB₀ᵀ(B₀B₀ᵀ)⁻¹, inverted in its turn.
        worse = condition(start.B) ** 2 + condition(run.final.A) ** 2
        rounding.append((20 * D * EPS * worse).numpy())
    return Evidence(np.concatenate(found), 0.0, tolerance=np.concatenate(rounding))


def _change(draws: Draws, *, damped: bool, promised: float) -> Evidence:
    """Exponent in ε of the loss's change in one step, from factors of size ε."""
    seeds = draws.seeds()
    of = population(D, D, spectrum(KAPPA, RANK) / KAPPA, seeds)
    gains = []
    for size in SIZES:
        run = simulate(
            of.problem, "p-lora" if damped else "lora", rank=RANK, learning_rate=ETA, steps=1,
            initial=_start(size, seeds), damping=DAMPING / KAPPA if damped else 0.0,
            record=("risk",),
        )  # fmt: skip
        gains.append((run["risk"][0] - run["risk"][-1]).abs().numpy())
    return exponent(exponents(SIZES, np.array(gains)), promised, SLOPE)


MODEL = ("𝒜 = I", "A₀ = εN, B₀ = εN′, Gaussian")
HOW = f"d = k = {D}, r = r* = {RANK}, κ = {KAPPA:g}, ε = {listed(SIZES)}, η = {ETA:g}"
READ = "Jia et al. 2024 (approximated Gauss–Newton), Sections 1 to 3"


def _slow(id: str, title: str, name: str, uses: str, *, damped: bool) -> Claim:
    return Claim(
        id=id,
        title=title,
        reference=(
            f"{READ}: methods that are slow at the saddle; exponent: derivations, neighbours 9"
        ),
        statement=(
            f"From factors of size ε one step of {name} changes the loss by Θ(ε²): exponent 2."
        ),
        hypotheses=MODEL,
        how=f"Change of ½‖E‖² in one step; {HOW}; exponent ± {SLOPE:g}.",
        kind="value",
        measure=lambda draws: _change(draws, damped=damped, promised=2.0),
        mutant_statement=f"exponent {POWER:g}",
        mutant=lambda draws: _change(draws, damped=damped, promised=POWER),
        trials=12,
        smoke_trials=6,
        derivation="neighbours 9",
        uses=(uses,),
    )


CLAIMS = (
    Claim(
        id="gauss-newton/saddle",
        title="One undamped sweep solves the problem from the saddle's edge",
        reference=f"{READ}; that one sweep is enough at 𝒜 = I is derivations, neighbours 9",
        statement="At η = 1 and r ≥ r* the sweep A, then B, gives AB = Δ from factors of any size.",
        hypotheses=(*MODEL, "r ≥ r*", "no damping"),
        how=f"‖E‖/‖Δ‖ after one sweep; {HOW}; against d·eps·(cond(B₀)² + cond(A₁)²).",
        kind="identity",
        measure=lambda draws: _solved(draws, damping=0.0),
        mutant_statement=f"damped by {DAMPING:g}σ_r",
        mutant=lambda draws: _solved(draws, damping=DAMPING),
        trials=20,
        smoke_trials=3,
        derivation="neighbours 9",
    ),
    _slow(
        "gauss-newton/saddle/gd",
        "Gradient descent is slow there",
        "descent",
        "lora-one/linear/one-step",
        damped=False,
    ),
    _slow(
        "gauss-newton/saddle/damped",
        "So is ScaledGD with a fixed damping",
        f"ScaledGD damped by {DAMPING:g}σ_r",
        "gauss-newton/saddle/gd",
        damped=True,
    ),
)
