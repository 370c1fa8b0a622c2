"""The limit of LoRA's flow at every rank, and the flow that two ways to step share."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    exponent,
    exponents,
    gaussian,
    population,
    sequential,
)
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import lora

D = 10
SPECTRUM = (1.0, 0.8, 0.6, 0.4, 0.2)
ETA, STD, STEPS, SHARE = 0.3, 0.3, 1500, 0.01


def _limit(draws: Draws, *, later: int) -> Evidence:
    """½‖E‖² at the end, over all ranks, against the tail of the spectrum."""
    S = torch.tensor(SPECTRUM, dtype=torch.float64)
    found, promised, allowed = [], [], []
    for rank in range(1, 4 if draws.smoke else 6):
        seeds = draws.seeds(block=rank)
        of = population(D, D, S, seeds)
        start = Factors(STD * gaussian(D, rank, seeds, "A0"), STD * gaussian(rank, D, seeds, "B0"))
        run = simulate(
            of.problem, "lora", rank=rank, learning_rate=ETA, steps=STEPS, every=STEPS,
            initial=start, record=("risk",),
        )  # fmt: skip
        found.append(run["risk"][-1].numpy())
        tail = S[rank + later :].square().sum() / 2
        promised.append(np.full(len(seeds), float(tail)))
        # Any other critical point is above by half a difference of squares; a hundredth of it.
        after = float(S[rank]) if rank < len(S) else 0.0
        allowed.append(np.full(len(seeds), SHARE * (float(S[rank - 1]) ** 2 - after**2) / 2))
    return Evidence(
        np.concatenate(found), np.concatenate(promised), tolerance=np.concatenate(allowed)
    )


TIME, GRID, SLOPE, SLOWER = 10.0, (0.04, 0.02, 0.01), 0.1, 0.9
RANK = 2


def _apart(draws: Draws, *, share: float) -> Evidence:
    """Exponent in η of the distance between the two products at time 10."""
    seeds = draws.seeds()
    of = population(D, D, torch.tensor(SPECTRUM, dtype=torch.float64), seeds)
    start = Factors(STD * gaussian(D, RANK, seeds, "A0"), STD * gaussian(RANK, D, seeds, "B0"))
    other = lora().with_rule(sequential, name="sequential", share=share)
    gaps = []
    for eta in GRID:
        ends = [
            simulate(
                of.problem, method, rank=RANK, learning_rate=eta, steps=round(TIME / eta),
                every=round(TIME / eta), initial=start, record=(),
            ).final.dense()
            for method in (lora(), other)
        ]  # fmt: skip
        gaps.append(torch.linalg.matrix_norm(ends[0] - ends[1]).numpy())
    return exponent(exponents(GRID, np.array(gaps)), 1.0, SLOPE)


CLAIMS = (
    Claim(
        id="gradient-flow/limit",
        title="At every rank the flow ends at the best approximation",
        reference="Rushka, Klabjan, arXiv 2602.10212, abstract",
        statement="From a generic start the loss tends to ½Σ_{i>r}σ_i².",
        hypotheses=("𝒜 = I", "generic A₀ and B₀, here Gaussian"),
        how=(
            f"Gradient descent, η = {ETA:g}, {STEPS} steps, r from one to {len(SPECTRUM)}, "
            f"σ = {listed(SPECTRUM)}, d = k = {D}, standard deviation {STD:g}; "
            f"{SHARE:.0%} of the way to the next critical value is allowed."
        ),
        kind="identity",
        measure=lambda draws: _limit(draws, later=0),
        mutant_statement="½Σ_{i>r+1}σ_i²",
        mutant=lambda draws: _limit(draws, later=1),
        trials=10,
        smoke_trials=2,
        uses=("lora-one/linear/floors/bound",),
    ),
    Claim(
        id="gradient-flow/sequential",
        title="Simultaneous and sequential steps share the flow",
        reference=(
            "Rushka, Klabjan, arXiv 2602.10212, abstract; the exponent is derivations, neighbours 9"
        ),
        statement="At a fixed time their products differ by O(η): exponent 1.",
        hypotheses=("𝒜 = I", "the same start"),
        how=(
            f"‖AB − A′B′‖_F at time {TIME:g}, η = {listed(GRID)}; d = k = {D}, r = {RANK}, "
            f"σ = {listed(SPECTRUM)}; exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _apart(draws, share=1.0),
        mutant_statement=f"the step of B {SLOWER:g} times as long",
        mutant=lambda draws: _apart(draws, share=SLOWER),
        trials=30,
        smoke_trials=16,
        derivation="neighbours 9",
    ),
)
