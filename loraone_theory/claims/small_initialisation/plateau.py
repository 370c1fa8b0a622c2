"""XXᵀ from a small start: it follows (I + ηM)ᵗ at first, and ends at an error of order α²."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    Population,
    exponent,
    exponents,
    gaussian,
    spectrum,
    started,
    symmetric_population,
)
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods.symmetric import symmetric

N, TRUE_RANK, RANK, ETA = 15, 2, 6, 0.3
ALPHAS, SLOPE = (1e-2, 1e-3, 1e-4), 0.1
GROWING, STEPS, SMALL, ALLOWED = 60, 250, 1e-4, 0.01


def _run(
    seeds: tuple[int, ...], alpha: float, steps: int, keep: int | None = None
) -> tuple[Population, torch.Tensor, Trajectory]:
    of = symmetric_population(N, spectrum(2.0, TRUE_RANK) / 2, seeds)
    X = alpha * gaussian(N, RANK, seeds, "X0") / N**0.5
    run = simulate(
        of.problem, started(symmetric(), X), rank=RANK, learning_rate=ETA, steps=steps,
        record=("error",), keep_factors=keep,
    )  # fmt: skip
    return of, X, run


def _phase(draws: Draws, *, more: int) -> Evidence:
    """Exponent in α of ‖X_t − (I + ηM)^{t+more}X₀‖/‖X_t‖ at the first ‖X_t‖ ≥ √α."""
    gaps = []
    for alpha in ALPHAS:
        of, X, run = _run(draws.seeds(), alpha, GROWING, keep=1)
        assert run.factors is not None  # they were asked for
        growth = torch.eye(N, dtype=torch.float64) + ETA * of.problem.shift.dense()
        there = torch.linalg.matrix_norm(run.factors.A, ord=2) >= alpha**0.5
        first = there.int().argmax(0)
        gap = []
        for i, t in enumerate(first.tolist()):
            follow = torch.linalg.matrix_power(growth[i], t + more) @ X[i]
            at = run.factors.A[t, i]
            gap.append(float((at - follow).norm() / at.norm()))
        gaps.append(gap)
    return exponent(exponents(ALPHAS, np.array(gaps)), 1.0, SLOPE)


def _plateau(draws: Draws, *, projected: bool) -> Evidence:
    """‖E‖_F at the end over ‖ZZᵀ‖_F, Z = U_⊥U_⊥ᵀX₀Q."""
    of, X, run = _run(draws.seeds(), SMALL, STEPS)
    Z = X - of.U @ (of.U.mT @ X)
    if projected:
        _, _, Vh = torch.linalg.svd(of.U.mT @ X)
        Z = Z @ Vh[..., TRUE_RANK:, :].mT
    ratio = run["error"][-1] / torch.linalg.matrix_norm(Z @ Z.mT)
    return Evidence(ratio.numpy(), 1.0, tolerance=ALLOWED)


MODEL = ("𝒜 = I, symmetric", "r > r*", "X₀ = αN/√n, N Gaussian")
SIZES = f"n = {N}, r* = {TRUE_RANK}, r = {RANK}, η = {ETA:g}"
CLAIMS = (
    Claim(
        id="small-initialisation/spectral-phase",
        title="At first descent is a power iteration",
        reference=(
            "Stöger, Soltanolkotabi, arXiv 2106.15013, abstract: akin to spectral learning; the "
            "exponent is ours (neighbours 6)"
        ),
        statement=(
            "X_t = (I + ηM)ᵗX₀ up to a relative error of the order of ‖X_t‖²: exponent 1 in α at "
            "the first ‖X_t‖ ≥ √α."
        ),
        hypotheses=MODEL,
        how=f"α = {listed(ALPHAS)}; {SIZES}; exponent ± {SLOPE:g}.",
        kind="value",
        measure=lambda draws: _phase(draws, more=0),
        mutant_statement="(I + ηM)^{t+1}",
        mutant=lambda draws: _phase(draws, more=1),
        trials=30,
        smoke_trials=16,
        derivation="neighbours 6",
    ),
    Claim(
        id="small-initialisation/plateau",
        title="What is left is the start, off the signal on both sides",
        reference=(
            "derivations, neighbours 6; a positive power of α is in the abstract of arXiv "
            "2106.15013"
        ),
        statement=(
            "‖E‖_F → ‖ZZᵀ‖_F, Z = U_⊥U_⊥ᵀX₀Q, Q the null space of UᵀX₀: an error of order α²."
        ),
        hypotheses=(*MODEL, "1/(ησ_r) ≪ t ≪ 1/(ηα²)"),
        how=f"α = {SMALL:g}, after {STEPS} steps; {SIZES}; ± {ALLOWED:.0%}.",
        kind="identity",
        measure=lambda draws: _plateau(draws, projected=True),
        mutant_statement="Q left out",
        mutant=lambda draws: _plateau(draws, projected=False),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 6",
    ),
)
