"""AB from a small start: AᵀA − BBᵀ stays near where it began, by O(ηα²), and by how much."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    exponent,
    exponents,
    gaussian,
    population,
    sequential,
    spectrum,
)
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method, lora

D, TRUE_RANK, RANK, ETA, KAPPA = 15, 3, 5, 0.1, 2.0
ALPHAS, TIMES = (1e-2, 1e-3, 1e-4), 2.0
# ln(1/α) in the drift takes about 1/ln(1/α) from its exponent at the middle α.
SLOPE = 1 / math.log(1 / ALPHAS[1])
SMALL, PAIR = 0.02, (1e-3, 1e-5)


def _run(
    seeds: tuple[int, ...], S: Tensor, alpha: float, eta: float, method: Method, *, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(D − D₀)/α² with D = AᵀA − BBᵀ, at every step or at the last; p and q, over α.

    p and q (n, r), the growing and the falling combination of the first mode, are
    (uᵀA₀ ± (B₀v)ᵀ)/√2.
    """
    of = population(D, D, S, seeds)
    A = gaussian(D, RANK, seeds, "A0") * D**-0.5
    B = gaussian(RANK, D, seeds, "B0") * D**-0.5
    # From α² to 1 at 1 + ησ_r a step, and as long to settle.
    steps = math.ceil(TIMES * math.log(1 / alpha**2) / math.log1p(eta * float(S.min())))
    run = simulate(
        of.problem, method, rank=RANK, learning_rate=eta, steps=steps, every=steps, record=(),
        initial=Factors(alpha * A, alpha * B), keep_factors=1 if whole else None,
    )  # fmt: skip
    at = run.final if run.factors is None else run.factors
    drift = (at.A.mT @ at.A - at.B @ at.B.mT) / alpha**2 - (A.mT @ A - B @ B.mT)
    left, right = (of.U.mT @ A)[:, 0], (B @ of.V)[..., 0]
    return drift, (left + right) / 2**0.5, (left - right) / 2**0.5


def _in_alpha(draws: Draws, method: Method) -> Evidence:
    """Exponent in α of max_t ‖D_t − D₀‖_op."""
    seeds, S = draws.seeds(), spectrum(KAPPA, TRUE_RANK) / KAPPA
    sizes, numbers = [], {}
    for alpha in ALPHAS:
        drift = _run(seeds, S, alpha, ETA, method, whole=True)[0]
        largest = torch.linalg.eigvalsh(drift).abs().amax((0, -1)).numpy()
        numbers[f"mean of the largest, over ηα², α = {alpha:g}"] = float(largest.mean() / ETA)
        sizes.append(alpha**2 * largest)
    return exponent(exponents(ALPHAS, np.array(sizes)), 2.0, SLOPE, **numbers)


def _law(draws: Draws, *, exact: bool) -> Evidence:
    """(D − D₀)/α² at the smaller of two α minus that at the larger, along −(pqᵀ + qpᵀ)."""
    seeds, S = draws.seeds(), torch.ones(1, dtype=torch.float64)
    ends = [_run(seeds, S, alpha, SMALL, lora(), whole=False) for alpha in PAIR]
    p, q = ends[0][1:]
    along = -(p[..., None] * q[:, None, :] + q[..., None] * p[:, None, :])
    found = ((ends[1][0] - ends[0][0]) * along).sum((-2, -1)) / along.square().sum((-2, -1))
    decay = -math.log1p(-(SMALL**2)) / math.log1p(SMALL)
    start = torch.linalg.vector_norm(p, dim=-1) / 2**0.5
    if exact:
        law = (PAIR[0] * start) ** decay - (PAIR[1] * start) ** decay
    else:
        law = torch.full_like(start, SMALL * math.log(PAIR[0] / PAIR[1]))
    ratio = found / law
    return Evidence(ratio.numpy(), 1.0, tolerance=SMALL, numbers={"mean": float(ratio.mean())})


CLAIMS = (
    Claim(
        id="small-initialisation/balance",
        title="Balancing is implicit: AᵀA − BBᵀ hardly moves",
        reference=(
            "Soltanolkotabi, Stöger, Xie 2023, abstract: implicit balancing; the law is ours "
            "(neighbours 6)"
        ),
        statement=(
            "Though the factors grow to √σ₁, ‖D_t − D₀‖_op = O(ηα² ln(1/α)), D = AᵀA − BBᵀ: "
            "exponent 2 in α, up to the logarithm."
        ),
        hypotheses=(
            "𝒜 = I",
            "σ₁ = 1",
            "A₀, B₀ with entries of standard deviation α/√d",
            "α ≪ 1",
        ),
        how=(
            f"d = k = {D}, r* = {TRUE_RANK}, r = {RANK}, κ = {KAPPA:g}, η = {ETA:g}, "
            f"α = {listed(ALPHAS)}; exponent ± {SLOPE:.2g}, for the logarithm."
        ),
        kind="value",
        measure=lambda draws: _in_alpha(draws, lora()),
        mutant_statement="B steps from where A has gone",
        mutant=lambda draws: _in_alpha(draws, lora().with_rule(sequential, name="sequential")),
        trials=16,
        smoke_trials=6,
        explanation=(
            "Steps taken one after the other move D by O(η) on the way, whatever α; they bring it "
            "back as E → 0, so that its last value alone does not tell the two apart."
        ),
        derivation="neighbours 6",
        uses=("lora-one/linear/one-step/balance",),
    ),
    Claim(
        id="small-initialisation/balance/law",
        title="By how much it moves",
        reference="derivations, neighbours 6",
        statement=(
            "r* = 1: D_t − D₀ = −(1 − (‖p‖/√(2σ))^g)(pqᵀ + qpᵀ) + O(ηα²), p = (uᵀA₀ + (B₀v)ᵀ)/√2, "
            "q = (uᵀA₀ − (B₀v)ᵀ)/√2, g = −ln(1 − η²σ²)/ln(1 + ησ); what is left is the same "
            "multiple of α² at every α."
        ),
        hypotheses=("𝒜 = I", "r* = 1", "A₀, B₀ with entries of standard deviation α/√d", "α ≪ 1"),
        how=(
            f"(D_t − D₀)/α² at α = {listed(PAIR)} with the same directions, their difference along "
            f"pqᵀ + qpᵀ over that of the law; d = k = {D}, r = {RANK}, σ of one, η = {SMALL:g}; "
            f"± {SMALL:g}, as the law is of first order in η."
        ),
        kind="identity",
        measure=lambda draws: _law(draws, exact=True),
        mutant_statement="ησ ln(1/α) in place of the power, its first order",
        mutant=lambda draws: _law(draws, exact=False),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 6",
        uses=("lora-one/linear/one-step/balance", "small-initialisation/balance"),
    ),
)
