"""f(x) = b aᵀx: which learning rates let both factors move the output as the width grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents, gaussian
from loraone_theory.methods.rules.lora_plus import lora_plus
from loraone_theory.methods.rules.preconditioned import preconditioned

WIDTHS, SMALL, SLOPE = (64, 256, 1024, 4096), (64, 256, 1024), 0.1
STEP, FALLS = 0.3, 0.2


def _of_b(draws: Draws, *, scaled: bool, power: float = 0.0, noise: float = 0.0) -> Evidence:
    """Exponent in n of the second step's (b₂ − b₁)a₁ᵀx; a₀ = noise·N(0, 1/n), b₀ = y = 1.

    The learning rate of b is n^power times that of a, where nothing is scaled.
    """
    widths = SMALL if draws.smoke else WIDTHS
    terms = []
    for n in widths:
        x = gaussian(n, 1, draws.seeds(), f"x {n}")
        a = noise * gaussian(n, 1, draws.seeds(), f"a {n}") / n**0.5
        b, eta = torch.ones_like(x[:, :1]), STEP / n
        rule = preconditioned(eta) if scaled else lora_plus(eta, ratio=n**power)
        params: tuple[torch.Tensor, ...] = (a, b)
        state = rule.init(params)
        for _ in range(2):
            a, b = params
            slope = x.mT @ a @ b - 1  # of ½(f − y)² in f
            params, state = rule.update(params, (slope * x @ b, slope * (x.mT @ a)), state)
        term = (params[1] - b) * (x.mT @ a)
        terms.append(term.abs()[:, 0, 0].numpy())
    return exponent(exponents(widths, np.array(terms)), 0.0, SLOPE)


def _with_equal(draws: Draws) -> Evidence:
    """Two rates, and among the numbers what equal ones of order n^{−1/2} do in three steps."""
    found, outputs = _of_b(draws, scaled=False, power=1.0), []
    for n in WIDTHS:
        x, b = gaussian(n, 1, draws.seeds(), f"x {n}"), torch.ones(1, 1, 1, dtype=torch.float64)
        rule = lora_plus(STEP / n**0.5, ratio=1.0)
        params: tuple[torch.Tensor, ...] = (0 * x, b.expand(len(x), 1, 1))
        state = rule.init(params)
        for _ in range(3):
            a, b = params
            slope = x.mT @ a @ b - 1
            params, state = rule.update(params, (slope * x @ b, slope * (x.mT @ a)), state)
        outputs.append((x.mT @ params[0] @ params[1]).abs()[:, 0, 0].numpy())
    name = f"exponent of the output after three steps, η_a = η_b = {STEP:g}n^{{−1/2}}"
    grown = float(exponents(WIDTHS, np.array(outputs)).mean())
    return replace(found, numbers={**found.numbers, name: grown})


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
        measure=_with_equal,
        mutant_statement=f"η_b ∝ n^-{FALLS:g}",
        mutant=lambda draws: _of_b(draws, scaled=False, power=1.0 - FALLS),
        trials=60,
        smoke_trials=160,
        explanation=(
            "Equal rates of order n^{−1/2} do not do: the step of a alone moves the output by "
            "n^{1/2}, and each further step multiplies that by powers of n. The exponent among "
            "the numbers is of these widths, where constants still count; as n → ∞ the output "
            "after one, two and three steps goes as n to the powers 1/2, 3/2 and 9/2."
        ),
    ),
)
