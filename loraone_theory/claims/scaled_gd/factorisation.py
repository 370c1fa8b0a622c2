"""ScaledGD at 𝒜 = I: a linear bound that knows no κ, and the step at which it ends."""

from __future__ import annotations

import math

import numpy as np
import torch

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, gaussian, near, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate

D, RANK = 20, 3
CONDITION_NUMBERS = (1.0, 10.0, 100.0)
RATES = (0.1, 0.3, 0.5, 2 / 3)
START, SHARE, SIZE = 0.1, 0.7, 0.15
LEVEL = 1e-9
BEYOND = 0.76


def _bound(draws: Draws, rates: tuple[float, ...]) -> Evidence:
    """max_t ‖E_t‖_F/((1 − 0.7η)ᵗ·0.15σ_r), σ_r = 1, until the bound is at LEVEL."""
    found, rounding, numbers = [], [], {}
    for block, kappa in enumerate(CONDITION_NUMBERS):
        seeds = draws.seeds(block=block)
        of = population(D, D, spectrum(kappa, RANK), seeds)
        start = near(of, START, seeds)
        for eta in rates[-2:] if draws.smoke else rates:
            steps = math.ceil(math.log(LEVEL) / math.log(1 - SHARE * eta))
            run = simulate(
                of.problem, "p-lora", rank=RANK, learning_rate=eta, steps=steps, initial=start,
                record=("error",),
            )  # fmt: skip
            bound = SIZE * (1 - SHARE * eta) ** np.arange(steps + 1)
            found.append((run["error"].numpy() / bound[:, None]).max(0))
            # Products of D terms of size up to κ, against the smallest bound looked at.
            rounding.append(np.full(len(seeds), 4 * D * EPS * kappa / (LEVEL * SIZE)))
        numbers[f"largest ratio to the bound at κ = {kappa:g}"] = float(found[-1].max())
    return Evidence(np.concatenate(found), 1.0, tolerance=np.concatenate(rounding), numbers=numbers)


SIDES, STEPS = (0.70, 0.78), 40
LOW, HIGH = 1e-9, 1e-4
EDGE = 2 / (2 + SHARE)
OTHER = 0.6


def _edge(draws: Draws, *, share: float) -> Evidence:
    """Where the rate along a mode of the signal, linear in η, meets 1 − share·η."""
    kappas = CONDITION_NUMBERS[1:]
    found = []
    for block, kappa in enumerate(kappas):
        seeds = draws.seeds(block=block)
        of = population(D, D, spectrum(kappa, RANK), seeds)
        move = gaussian(RANK, RANK, seeds, "C")
        root = of.S.sqrt()
        inside = root[..., None] * move * root[:, None, :]
        move = START / 2 * move / torch.linalg.matrix_norm(inside)[:, None, None]
        at = of.balanced
        start = Factors(at.A + at.A @ move, at.B + move @ at.B)
        gaps = []
        for eta in SIDES:
            run = simulate(
                of.problem, "p-lora", rank=RANK, learning_rate=eta, steps=STEPS, initial=start,
                record=("error",),
            )  # fmt: skip
            rate = stats.decay_rate(run["error"].numpy(), low=LOW * kappa, high=HIGH)
            gaps.append(rate - (1 - share * eta))
        found.append(SIDES[0] - gaps[0] * (SIDES[1] - SIDES[0]) / (gaps[1] - gaps[0]))
    # ‖E‖ ≤ HIGH bends the rate by HIGH relatively, rounding at LOW by D·eps/LOW: an error of a
    # rate is one of the crossing divided by the slope 2 + share, times the steepness of the line.
    bent = HIGH + 4 * D * EPS / LOW
    tolerance = 4 * bent / (SIDES[1] - SIDES[0])
    return Evidence(np.concatenate(found), EDGE, tolerance=tolerance)


CLAIMS = (
    Claim(
        id="scaled-gd/factorisation",
        title="A linear bound without κ, at 𝒜 = I",
        reference=(
            "Tong, Ma, Chi, arXiv 2005.08898, matrix factorisation. Its constants were not read: "
            f"linear at a rate without κ, judged with 1 − {SHARE:g}η, {START:g} and {SIZE:g}"
        ),
        statement=(
            f"dist₀ ≤ {START:g}σ_r and 0 < η ≤ {RATES[-1]:.3g} give "
            f"‖E_t‖_F ≤ (1 − {SHARE:g}η)ᵗ·{SIZE:g}σ_r for all t, whatever κ; dist² is the least "
            "‖(A₀Q − U√Σ)√Σ‖² + ‖√Σ(Q⁻¹B₀ − √ΣVᵀ)‖² over invertible Q, for Δ = UΣVᵀ."
        ),
        hypotheses=(
            "𝒜 = I",
            "r = r*",
            f"dist(A₀, B₀) ≤ {START:g}σ_r, by construction: the distance at Q = I is that",
        ),
        how=(
            f"d = k = {D}, r = {RANK}, κ = {listed(CONDITION_NUMBERS)}, η = {listed(RATES)}, "
            f"until the bound is at {LEVEL:g} of its start."
        ),
        kind="bound",
        measure=lambda draws: _bound(draws, RATES),
        mutant_statement=f"η = {BEYOND:g}, beyond {RATES[-1]:.3g}",
        mutant=lambda draws: _bound(draws, (BEYOND,)),
        trials=20,
        smoke_trials=4,
        explanation=(
            "The bound is nearest at t = 0; the rate that is reached is max(1 − η, 2η − 1)."
        ),
        derivation="neighbours 1",
        uses=("scaled-gd/factorisation/edge",),
    ),
    Claim(
        id="scaled-gd/factorisation/edge",
        title="The step at which that bound ends",
        reference="derivations, neighbours 1",
        statement=(
            f"(1 − {SHARE:g}η)ᵗ bounds ‖E_t‖_F near a solution as long as 2η − 1 ≤ 1 − {SHARE:g}η: "
            f"η ≤ 2/{2 + SHARE:g}, whatever κ."
        ),
        hypotheses=(
            "𝒜 = I",
            "r = r*",
            f"dist(A₀, B₀) ≤ {START:g}σ_r, with dist of scaled-gd/factorisation",
        ),
        how=(
            f"Rates of ‖E_t‖ between {HIGH:g} and κ·{LOW:g} along a random mode of the signal, at "
            f"η = {listed(SIDES)}, and where the line through both meets that of the bound; "
            f"d = k = {D}, r = {RANK}, κ = {listed(CONDITION_NUMBERS[1:])}."
        ),
        kind="identity",
        measure=lambda draws: _edge(draws, share=SHARE),
        mutant_statement=f"1 − {OTHER:g}η in place of 1 − {SHARE:g}η",
        mutant=lambda draws: _edge(draws, share=OTHER),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 1",
    ),
)
