"""4.1: Diag(S) in both factors, as an early README has it, is not a gradient step."""

from __future__ import annotations

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.core.randomness import generator, normal

D, K, RANK, ALPHA, GAMMA = 14, 11, 4, 16.0, 128.0
EPS = np.finfo(np.float64).eps


def _gap(draws: Draws, *, power: float, any_rate: bool = False) -> Evidence:
    """Distance of s A₀B₀ from the best rank-r step, with Diag(S^power) in both factors.

    `any_rate` compares with the closest multiple of the step instead.
    """
    found, rates = [], []
    for seed in draws.seeds():
        U, S, Vt = np.linalg.svd(normal(generator(seed, "4.1"), D, K), full_matrices=False)
        A = GAMMA**-0.5 * U[:, :RANK] * S[:RANK] ** power
        B = GAMMA**-0.5 * (S[:RANK] ** power)[:, None] * Vt[:RANK]
        step = U[:, :RANK] * S[:RANK] @ Vt[:RANK]
        product, rate = ALPHA / RANK**0.5 * A @ B, ALPHA / (GAMMA * RANK**0.5)
        closest = (product * step).sum() / (step * step).sum()
        used = closest if any_rate else rate
        found.append(np.linalg.norm(product - used * step) / np.linalg.norm(used * step))
        rates.append(closest / rate)
    return Evidence(
        np.array(found),
        0.0,
        tolerance=EPS * D * K,
        numbers={
            "mean relative distance": float(np.mean(found)),
            "mean of the closest learning rate over α/(γ√r)": float(np.mean(rates)),
        },
    )


_HOW = f"Gaussian −∇L, d = {D}, k = {K}, r = {RANK}, s = α/√r, α = {ALPHA:g}, γ = {GAMMA:g}."

CLAIMS = (
    Claim(
        id="lora-one/discrepancies/diag-s",
        aliases=("4.1",),
        title="Diag(S) in both factors is a gradient step",
        reference="an early README of the authors, against Algorithm 1",
        statement=(
            "A₀ = γ^{−1/2}U_r Diag(S), B₀ = γ^{−1/2}Diag(S)V_rᵀ is the best rank-r full gradient "
            "step with learning rate α/(γ√r)."
        ),
        hypotheses=("singular values of −∇L not all equal to 1",),
        how=_HOW,
        kind="identity",
        measure=lambda draws: _gap(draws, power=1.0),
        mutant_statement="the same with whatever learning rate fits best",
        mutant=lambda draws: _gap(draws, power=1.0, any_rate=True),
        trials=200,
        smoke_trials=20,
        expected=Finding.VIOLATED,
        explanation=(
            "As written the product is (s/γ) U S² Vᵀ: directions are weighted by their squares. No "
            "learning rate makes it a step, unless all singular values are equal."
        ),
        uses=("lora-one/algorithm-1",),
    ),
    Claim(
        id="lora-one/discrepancies/diag-s/root",
        aliases=("4.1/Diag(√S)",),
        title="Diag(√S) in both factors is one",
        reference="an early README of the authors, corrected",
        statement=(
            "A₀ = γ^{−1/2}U_r Diag(√S), B₀ = γ^{−1/2}Diag(√S)V_rᵀ is the best rank-r full gradient "
            "step with learning rate α/(γ√r)."
        ),
        hypotheses=(),
        how=_HOW,
        kind="identity",
        measure=lambda draws: _gap(draws, power=0.5),
        mutant_statement="the same with Diag(S)",
        mutant=lambda draws: _gap(draws, power=1.0),
        trials=200,
        smoke_trials=20,
        explanation="The released code has √(S/S₀): then the rate is α/(γ√r σ₁), see Alg. 1.",
        uses=("lora-one/algorithm-1",),
    ),
)
