"""A scaled step of Muon is steepest descent in the spectral norm."""

from __future__ import annotations

import torch

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import EPS, condition, gaussian
from loraone_theory.methods.rules.muon import muon

D, K, RATE, LESS = 10, 6, 0.3, 0.9


def _model(draws: Draws, *, share: float) -> Evidence:
    """⟨∇, Z⟩ + ‖Z‖_op²/2η of Z = `share` of the step, over its least value −½η‖∇‖_*²."""
    P, G = gaussian(D, K, draws.seeds(), "P"), gaussian(D, K, draws.seeds(), "∇")
    rule = muon(RATE, scaled=True)
    (after,), _ = rule.update((P,), (G,), rule.init((P,)))
    Z = share * (after - P)
    nuclear = torch.linalg.svdvals(G).sum(-1)
    value = (G * Z).sum((-2, -1)) + torch.linalg.matrix_norm(Z, 2) ** 2 / (2 * RATE)
    least = -0.5 * RATE * nuclear**2
    tolerance = 20 * D * EPS * condition(G) * (1 + torch.linalg.matrix_norm(P) / nuclear / RATE)
    return Evidence((value / least).numpy(), 1.0, tolerance=tolerance.numpy())


CLAIMS = (
    Claim(
        id="lora-muon/steepest",
        title="A scaled step of Muon is steepest descent in the spectral norm",
        reference="Bernstein, Newhouse 2024, steepest descent under norms; arXiv 2602.06385",
        statement=(
            "Z = −η‖∇‖_*·UVᵀ, ∇ = USVᵀ, has ⟨∇, Z⟩ + ‖Z‖_op²/2η = −½η‖∇‖_*², the least value: "
            "⟨∇, Z⟩ ≥ −‖∇‖_*‖Z‖_op."
        ),
        hypotheses=(),
        how=f"One step from Gaussian P and ∇, {D}×{K}, η = {RATE:g}; over the least value.",
        kind="identity",
        measure=lambda draws: _model(draws, share=1.0),
        mutant_statement=f"{LESS:g} of the step",
        mutant=lambda draws: _model(draws, share=LESS),
        trials=100,
        smoke_trials=5,
    ),
)
