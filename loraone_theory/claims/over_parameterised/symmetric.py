"""XXᵀ beyond the true rank: the loss falls as 1/T², with a constant that knows no problem."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    Population,
    exponent,
    gaussian,
    spectrum,
    started,
    symmetric_population,
)
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods.symmetric import symmetric

N, TRUE_RANK, RANKS, ETA, STD = 15, 3, (4, 5, 8), 0.15, 0.3
EARLY, LATE = 500, 2000
SLOPE, POWER, ALLOWED = 0.1, -1.8, 0.02


def _constant(draws: Draws, order: int | str) -> Evidence:
    """2ηt‖E_t‖ at LATE, ‖·‖ of this order."""
    found = []
    for rank in RANKS[1:2] if draws.smoke else RANKS:
        of, run = _run(draws.seeds(block=rank), rank)
        E = run.final.dense() - of.problem.shift.dense()
        found.append(2 * ETA * LATE * torch.linalg.matrix_norm(E, ord=order).numpy())
    return Evidence(np.concatenate(found), 1.0, tolerance=ALLOWED)


def _run(seeds: tuple[int, ...], rank: int) -> tuple[Population, Trajectory]:
    of = symmetric_population(N, spectrum(2.0, TRUE_RANK) / 2, seeds)
    X = STD * gaussian(N, rank, seeds, "X0")
    run = simulate(
        of.problem, started(symmetric(), X), rank=rank, learning_rate=ETA, steps=LATE, every=EARLY,
        record=("risk",),
    )  # fmt: skip
    return of, run


def _loss(draws: Draws, *, promised: float) -> Evidence:
    _, run = _run(draws.seeds(), RANKS[1])
    early, late = run["risk"][[1, -1]].numpy()
    return exponent(np.log(late / early) / np.log(LATE / EARLY), promised, SLOPE)


MODEL = ("𝒜 = I, symmetric", "r > r*", "t ≫ 1/(ηq₀²), q₀ the start off the signal")
SIZES = f"n = {N}, r* = {TRUE_RANK}, η = {ETA:g}, X₀ with entries of standard deviation {STD:g}"
CLAIMS = (
    Claim(
        id="over-parameterised/symmetric",
        title="Beyond the true rank the loss falls as 1/T²",
        reference="Xiong, Ding, Du, arXiv 2310.01769, abstract: Ω(1/T²)",
        statement="r > r*: the loss after T steps is Θ(1/T²): exponent −2.",
        hypotheses=MODEL,
        how=f"Between t = {EARLY} and {LATE}, r = {RANKS[1]}; {SIZES}; exponent ± {SLOPE:g}.",
        kind="value",
        measure=lambda draws: _loss(draws, promised=-2.0),
        mutant_statement=f"exponent {POWER:g}",
        mutant=lambda draws: _loss(draws, promised=POWER),
        trials=20,
        smoke_trials=8,
        derivation="neighbours 5",
        uses=("over-parameterised/symmetric/constant",),
    ),
    Claim(
        id="over-parameterised/symmetric/constant",
        title="Its constant is that of one direction",
        reference="derivations, neighbours 5",
        statement="r > r*: 2ηt‖E_t‖_op → 1, whatever M, r and the start.",
        hypotheses=MODEL,
        how=f"At t = {LATE}, r = {listed(RANKS)}; {SIZES}; ± {ALLOWED:g}.",
        kind="identity",
        measure=lambda draws: _constant(draws, 2),
        mutant_statement="‖·‖_F in place of ‖·‖_op",
        mutant=lambda draws: _constant(draws, "fro"),
        trials=10,
        smoke_trials=3,
        derivation="neighbours 5",
    ),
)
