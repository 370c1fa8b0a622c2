"""From the Nyström start: one step where A and B differ, Newton's iteration where they do not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    EPS,
    gaussian,
    population,
    spectrum,
    started,
    symmetric_population,
)
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods.symmetric import symmetric_preconditioned

D, K, TRUE_RANK, RANKS, KAPPA = 12, 10, 3, (3, 5), 5.0
WHOLE, HALF, LESS, SHORT = 1.0, 0.5, 0.97, 0.48


def _condition(X: Tensor) -> np.ndarray:
    """Largest over r*-th singular value."""
    S = torch.linalg.svdvals(X)
    return (S[..., 0] / S[..., TRUE_RANK - 1]).numpy()


def _one_step(draws: Draws, *, eta: float) -> Evidence:
    """‖E₁‖/‖Δ‖, to rounding of the inverse of AᵀA."""
    found, rounding = [], []
    for block, rank in enumerate(RANKS):
        seeds = draws.seeds(block=block)
        of = population(D, K, spectrum(KAPPA, TRUE_RANK), seeds)
        run = simulate(
            of.problem, "nystrom", rank=rank, learning_rate=eta, steps=1, seeds=seeds,
            record=("error",),
        )  # fmt: skip
        found.append((run["error"][1] / run["error"][0]).numpy())
        A, _ = methods.nystrom().init(of.problem, rank, seeds).trainable
        rounding.append(20 * D * EPS * _condition(A) ** 2)
    return Evidence(np.concatenate(found), 0.0, tolerance=np.concatenate(rounding))


def _newton(draws: Draws, *, eta: float) -> Evidence:
    """‖E⁺ − ¼E(XXᵀ)†E‖/‖E‖ from X = MΩ/‖MΩ‖·‖M‖^{1/2}."""
    found, rounding = [], []
    for block, rank in enumerate(RANKS):
        seeds = draws.seeds(block=block)
        of = symmetric_population(D, spectrum(KAPPA, TRUE_RANK), seeds)
        M = of.problem.shift.dense()
        X = M @ gaussian(D, rank, seeds, "sketch")
        X = KAPPA**0.5 * X / torch.linalg.matrix_norm(X, ord=2)[:, None, None]
        run = simulate(
            of.problem, started(symmetric_preconditioned(), X), rank=rank, learning_rate=eta,
            steps=1, record=(),
        )  # fmt: skip
        E = X @ X.mT - M
        # (XXᵀ)† on the r* directions of M: the others are rounding.
        inside = of.U.mT @ X
        inverse = of.U @ torch.linalg.inv(inside @ inside.mT) @ of.U.mT
        promised = E @ inverse @ E / 4
        gap = torch.linalg.matrix_norm(run.final.dense() - M - promised)
        size = torch.linalg.matrix_norm(promised) + torch.linalg.matrix_norm(M)
        found.append((gap / size).numpy())
        rounding.append(20 * D * EPS * _condition(X) ** 2)
    return Evidence(np.concatenate(found), 0.0, tolerance=np.concatenate(rounding))


CLAIMS = (
    Claim(
        id="nora/one-step",
        title="From a sketch of Δ, one step is enough",
        reference=(
            "Li, Zhang, Mokhtari, He, arXiv 2410.18965, abstract and summary: one step in "
            "asymmetric problems; its step size was not read, 1 is ours (neighbours 3)"
        ),
        statement="A₀ = ΔΩ, B₀ = 0, η = 1, r ≥ r*: preconditioned descent has A₁B₁ = Δ.",
        hypotheses=("𝒜 = I", "r ≥ r*", "pseudo-inverses: at B = 0 A does not move"),
        how=(
            f"‖E₁‖/‖Δ‖ at d = {D}, k = {K}, r* = {TRUE_RANK}, r = {listed(RANKS)}, "
            f"κ = {KAPPA:g}, against d·eps·cond(A₀)²."
        ),
        kind="identity",
        measure=lambda draws: _one_step(draws, eta=WHOLE),
        mutant_statement=f"η = {LESS:g}",
        mutant=lambda draws: _one_step(draws, eta=LESS),
        trials=50,
        smoke_trials=4,
        explanation="Δ is not known to whoever fine-tunes: the method takes a gradient for it.",
        derivation="neighbours 3",
    ),
    Claim(
        id="nora/newton",
        title="The symmetric case is Newton's iteration of the square root",
        reference=(
            "derivations, neighbours 3; quadratic convergence is in the abstract of "
            "Li, Zhang, Mokhtari, He, arXiv 2410.18965"
        ),
        statement="X in the range of M and η = ½: E⁺ = ¼E(XXᵀ)†E, so convergence is quadratic.",
        hypotheses=("𝒜 = I, symmetric", "r ≥ r*", "X₀ = MΩ"),
        how=(
            f"‖E⁺ − ¼E(XXᵀ)†E‖ over ‖E⁺‖ + ‖M‖, one step; n = {D}, r* = {TRUE_RANK}, "
            f"r = {listed(RANKS)}, κ = {KAPPA:g}, against n·eps·cond(X)²."
        ),
        kind="identity",
        measure=lambda draws: _newton(draws, eta=HALF),
        mutant_statement=f"η = {SHORT:g}, where the rate is linear",
        mutant=lambda draws: _newton(draws, eta=SHORT),
        trials=50,
        smoke_trials=4,
        derivation="neighbours 3",
    ),
)
