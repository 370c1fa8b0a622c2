"""2.2: with Haar U a run of an equivariant rule depends on the spectrum of Σ̂ alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.covariance import Diagonal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

# Rows with heavy tails have now and then a large eigenvalue, at which η is small enough still.
D, K, RANK, SAMPLES, STEPS, RATE = 8, 6, 2, 24, 15, 0.01
INPUTS: dict[str, Any] = {"inputs": "elliptic", "freedom": 6.0}


def _statistics(problem: LinearProblem, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=STEPS, init_std=0.3, seeds=seeds,
        record=("risk", "loss"), every=STEPS,
    )  # fmt: skip
    return {
        "loss at the start": run["loss"][0],
        f"risk after {STEPS} steps": run["risk"][-1],
        f"loss after {STEPS} steps": run["loss"][-1],
    }


def _spectrum(draws: Draws, *, law: dict[str, Any]) -> Evidence:
    """Rows of a law, against the spectrum that other rows of it have, on the coordinate axes."""
    seeds, others = draws.seeds(), draws.seeds(block=1)
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK, "samples": SAMPLES}
    rows = sample_linear(seeds=seeds, **sizes, **INPUTS)
    bare = sample_linear(seeds=others, **sizes, **law)
    values = torch.linalg.eigvalsh(bare.covariance.apply(torch.eye(D, dtype=torch.float64)))
    plain = replace(bare, covariance=Diagonal(values), pretrained=None)
    return same_law(_statistics(rows, seeds), _statistics(plain, others))


CLAIMS = (
    Claim(
        id="sensing/input-laws/spectrum",
        title="Of the inputs, the spectrum alone",
        reference="derivations, sensing 2.2",
        statement=(
            "With Haar U and isotropic risk the law of a run of an equivariant rule depends on "
            "that of the eigenvalues of Σ̂ alone, whatever the inputs are."
        ),
        hypotheses=("linear model", "U Haar and independent of X", "a rotation-equivariant rule"),
        how=(
            "Three statistics under elliptic Student rows, ν = "
            f"{INPUTS['freedom']:g}, and under a diagonal Σ̂ of their eigenvalues; d = {D}, "
            f"k = {K}, r = r* = {RANK}, N = {SAMPLES}, {STEPS} steps; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _spectrum(draws, law=INPUTS),
        mutant_statement="the eigenvalues of Gaussian rows",
        mutant=lambda draws: _spectrum(draws, law={}),
        trials=3000,
        smoke_trials=2000,
        explanation=NO_PROOF,
        derivation="sensing 2.2",
        uses=("lora-one/linear/rotation",),
    ),
)
