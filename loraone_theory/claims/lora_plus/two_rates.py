"""Both factors move the output by Θ(1) if η_A ∝ 1/n and η_B ∝ 1, and what equal rates do."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents
from loraone_theory.claims.width import WIDTHS, features, output, sizes, start, step
from loraone_theory.core.factors import Factors

STEPS, RATE, SLOPE, CLOSE = 5, 0.3, 0.1, 0.05
LESS, HALF, MORE = -0.2, 0.5, 0.6


def _terms(draws: Draws, of_A: float, of_B: float) -> Evidence:
    """Exponents of xᵀ(A₂ − A₁)B₁ and xᵀA₁(B₂ − B₁), the one further from 0 in each draw."""
    widths, found = sizes(draws), []
    for n in widths:
        pair, x, y = start(n, draws.seeds(), zero="B")
        rates = RATE * n**of_A, RATE * n**of_B
        pair = step(pair, x, y, rates[0], rates[1] / rates[0])
        after = step(pair, x, y, rates[0], rates[1] / rates[0])
        moves = (
            Factors(after.A - pair.A, pair.B),
            Factors(pair.A, after.B - pair.B),
        )
        found.append(
            torch.stack([output(move, x).square().mean((-2, -1)).sqrt() for move in moves])
        )
    both = torch.stack(found).numpy()
    slopes = np.stack([exponents(widths, both[:, i]) for i in range(2)])
    worst = np.take_along_axis(slopes, np.abs(slopes).argmax(0)[None], 0)[0]
    pairs = zip("AB", slopes, strict=True)
    means = {f"mean exponent of the term of {name}": float(row.mean()) for name, row in pairs}
    return exponent(worst, 0.0, SLOPE, **means)


def _inner(draws: Draws, of_A: float, of_B: float, promised: float) -> Evidence:
    """Exponent of the root mean square of xᵀA, the largest of STEPS steps."""
    widths, found = sizes(draws), []
    for n in widths:
        pair, x, y = start(n, draws.seeds(), zero="B")
        rates = RATE * n**of_A, RATE * n**of_B
        inner = []
        for _ in range(STEPS):
            pair = step(pair, x, y, rates[0], rates[1] / rates[0])
            inner.append(features(pair, x).square().mean((-2, -1)).sqrt())
        found.append(torch.stack(inner).amax(0).numpy())
    return exponent(exponents(widths, np.array(found)), promised, CLOSE)


MODEL = (
    "signs of gradients as steps, as Adam's without means",
    "one input of n entries N(0, 1), labels N(0, 1)",
    "A₀ with N(0, 1/n) entries, B₀ = 0",
)
SIZES = f"n in = n out = {listed(WIDTHS)}"
READ = "Hayou, Ghosh, Yu, arXiv 2402.12354, abstract, and Section 4 of arXiv 2402.02347"
CLAIMS = (
    Claim(
        id="lora-plus/two-rates",
        title="η_A ∝ 1/n and η_B ∝ 1 let both factors learn",
        reference=READ,
        statement="Then xᵀ(A₂ − A₁)B₁ and xᵀA₁(B₂ − B₁) are both Θ(1): exponents 0.",
        hypotheses=MODEL,
        how=(
            f"The exponent in n further from zero, in the second step; {SIZES}, η_A = {RATE:g}/n, "
            f"η_B = {RATE:g}; ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _terms(draws, -1.0, 0.0),
        mutant_statement=f"η_B ∝ n^{LESS:g}",
        mutant=lambda draws: _terms(draws, -1.0, LESS),
        trials=256,
        smoke_trials=128,
        derivation="neighbours 12",
    ),
    Claim(
        id="lora-plus/equal-rates",
        title="Equal rates n^{−1/2} keep the output and let the inner feature grow",
        reference=f"{READ}; the exponent is derivations, neighbours 12",
        statement="At η_A = η_B ∝ n^{−1/2} the inner feature xᵀA grows as n^{1/2}.",
        hypotheses=MODEL,
        how=(
            f"Exponent in n of its root mean square, the largest of {STEPS} steps; {SIZES}, "
            f"η = {RATE:g}/√n; ± {CLOSE:g}."
        ),
        kind="value",
        measure=lambda draws: _inner(draws, -0.5, -0.5, HALF),
        mutant_statement=f"exponent {MORE:g}",
        mutant=lambda draws: _inner(draws, -0.5, -0.5, MORE),
        trials=80,
        smoke_trials=120,
        derivation="neighbours 12",
    ),
)
