"""6.1: entries of a fresh batch's covariance, and how full fine-tuning contracts on such."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import ratios

D, K, BATCH, NOISE, RATE = 4, 3, 3, 0.5, 0.8
# E has two large entries on a diagonal, so that E_ja E_ic is as large as E_ia E_jc and a half.
ERROR = np.array([[0.6, 0.9, 0.1], [1.0, 1.2, -0.2], [0.3, -0.4, 0.5], [-0.1, 0.2, 0.3]])
FIRST, SECOND = (0, 0), (1, 1)
OF_ENTRIES, WITHIN = 0.08, 0.03


def _covariance(draws: Draws, *, crossed: bool) -> Evidence:
    """b(ĝ_ia − E_ia)(ĝ_jc − E_jc) over what is promised of it."""
    X, Z = draws.normals(BATCH, D), NOISE * draws.normals(BATCH, K, block="noise")
    miss = X.swapaxes(1, 2) @ (X @ ERROR - Z) / BATCH - ERROR
    found = torch.from_numpy(miss[:, FIRST[0], FIRST[1]] * miss[:, SECOND[0], SECOND[1]])
    law = predict.stochastic.gradient_covariance(
        torch.from_numpy(ERROR), batch=BATCH, noise_std=NOISE
    )[(*FIRST, *SECOND)]
    if not crossed:
        law = torch.tensor(ERROR[FIRST] * ERROR[SECOND] / BATCH)
    return ratios(found, float(law), OF_ENTRIES)


def _contraction(draws: Draws, *, less: int) -> Evidence:
    """‖E₁‖²/‖E₀‖² of full fine-tuning on a fresh batch without noise."""
    X = draws.normals(BATCH, D)
    after = ERROR - RATE / BATCH * X.swapaxes(1, 2) @ (X @ ERROR)
    law = 1 - 2 * RATE + RATE**2 * (1 + (D + 1 - less) / BATCH)
    found = torch.from_numpy((after**2).sum((1, 2)) / (ERROR**2).sum())
    return ratios(found, law, WITHIN)


CLAIMS = (
    Claim(
        id="sensing/online-moments/covariance",
        title="Covariance of two entries of a fresh batch's gradient",
        reference="derivations, sensing 6.1",
        statement="Cov(ĝ_ia, ĝ_jc) = [δ_ij((EᵀE)_ac + σ²δ_ac) + E_jaE_ic]/b.",
        hypotheses=("linear model", "fresh Gaussian rows", "label noise of variance σ²"),
        how=(
            f"Entries {FIRST} and {SECOND}, of which the last term is all; d = {D}, k = {K}, "
            f"b = {BATCH}, σ = {NOISE}; within {OF_ENTRIES:.0%}."
        ),
        kind="value",
        measure=lambda draws: _covariance(draws, crossed=True),
        mutant_statement="E_iaE_jc in place of E_jaE_ic",
        mutant=lambda draws: _covariance(draws, crossed=False),
        trials=100_000,
        smoke_trials=60_000,
        derivation="sensing 6.1",
        uses=("sensing/online-moments",),
    ),
    Claim(
        id="sensing/stationary/contraction",
        title="How full fine-tuning on fresh batches contracts",
        reference="derivations, sensing 6.1",
        statement=(
            "Without noise E‖E‖² is multiplied by 1 − 2η + η²(1 + (d + 1)/b) in a step: it falls "
            "for η < 2/(1 + (d + 1)/b)."
        ),
        hypotheses=("linear model", "fresh Gaussian rows", "no noise"),
        how=f"One step at η = {RATE}; d = {D}, k = {K}, b = {BATCH}; within {WITHIN:.0%}.",
        kind="value",
        measure=lambda draws: _contraction(draws, less=0),
        mutant_statement="d in place of d + 1",
        mutant=lambda draws: _contraction(draws, less=1),
        trials=100_000,
        smoke_trials=50_000,
        derivation="sensing 6.1",
        uses=("sensing/online-moments",),
    ),
)
