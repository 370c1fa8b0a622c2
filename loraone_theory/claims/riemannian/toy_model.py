"""f(x) = b aᵀx: which learning rates let both factors move the output as the width grows."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents, gaussian
from loraone_theory.methods.rules.lora_plus import lora_plus
from loraone_theory.methods.rules.preconditioned import preconditioned

WIDTHS, SMALL, SLOPE = (64, 256, 1024, 4096), (64, 256, 1024), 0.1
STEP = 0.3


def _of_b(draws: Draws, *, scaled: bool, equal: bool = True, noise: float = 0.0) -> Evidence:
    """Exponent in n of the second step's (b₂ − b₁)a₁ᵀx; a₀ = noise·N(0, 1/n), b₀ = y = 1."""
    widths = SMALL if draws.smoke else WIDTHS
    terms = []
    for n in widths:
        x = gaussian(n, 1, draws.seeds(), f"x {n}")
        a = noise * gaussian(n, 1, draws.seeds(), f"a {n}") / n**0.5
        b, eta = torch.ones_like(x[:, :1]), STEP / n
        rule = preconditioned(eta) if scaled else lora_plus(eta, ratio=1.0 if equal else float(n))
        params: tuple[torch.Tensor, ...] = (a, b)
        state = rule.init(params)
        for _ in range(2):
            a, b = params
            slope = x.mT @ a @ b - 1  # of ½(f − y)² in f
            params, state = rule.update(params, (slope * x @ b, slope * (x.mT @ a)), state)
        term = (params[1] - b) * (x.mT @ a)
        terms.append(term.abs()[:, 0, 0].numpy())
    return exponent(exponents(widths, np.array(terms)), 0.0, SLOPE)


HYPOTHESES = ("one sample x of n entries N(0, 1)", "a₀ = 0, b₀ = 1, label 1", "two steps")
HOW = (
    f"Exponent in n of |(b₂ − b₁)a₁ᵀx|, n = {listed(WIDTHS)}, η_a = {STEP:g}/n; ± {SLOPE:g}. "
    "That of a, b₁(a₂ − a₁)ᵀx, is of order one in all cases."
)
CLAIMS = (
    Claim(
        id="riemannian/toy-model",
        title="One learning rate is enough for scaled gradient descent",
        reference="Zhang, Pilanci, arXiv 2402.02347, Section 4 (read)",
        statement="With η ∝ 1/n the step of b moves the output by Θ(1): exponent 0.",
        hypotheses=HYPOTHESES,
        how=HOW,
        kind="value",
        measure=lambda draws: _of_b(draws, scaled=True),
        mutant_statement="a₀ ~ N(0, 1/n) in place of a₀ = 0",
        mutant=lambda draws: _of_b(draws, scaled=True, noise=1.0),
        trials=60,
        smoke_trials=120,
        explanation=(
            "a₀ = 0 is a hypothesis that the exponents hide: from a₀ ~ N(0, 1/n), aᵀa = Θ(1) and "
            "the step of b is of order 1/n."
        ),
    ),
    Claim(
        id="riemannian/toy-model/two-rates",
        title="Gradient descent needs two",
        reference="Zhang, Pilanci, arXiv 2402.02347, Section 4 (read), after LoRA+",
        statement="With η_a ∝ 1/n and η_b ∝ 1 the step of b moves the output by Θ(1).",
        hypotheses=HYPOTHESES,
        how=HOW,
        kind="value",
        measure=lambda draws: _of_b(draws, scaled=False, equal=False),
        mutant_statement="η_b = η_a",
        mutant=lambda draws: _of_b(draws, scaled=False),
        trials=60,
        smoke_trials=40,
    ),
)
