"""Under Muon on both factors σ_i(AB) = t² until it is there: the smallest arrives first."""

from __future__ import annotations

import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents, population
from loraone_theory.claims.spectral_growth.base import arrivals
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method, lora, muon

D, SPECTRUM, STD = 20, (4.0, 3.0, 2.0, 1.0), 1e-3
ETA, TIME, SHARE, ALLOWED = 2e-3, 2.4, 0.9, 0.02


def _times(draws: Draws, method: Method, promised_share: float) -> Evidence:
    """Time at which σ_i(AB) is 0.9σ_i over √(share·σ_i), the worst i of each draw."""
    seeds, S = draws.seeds(), torch.tensor(SPECTRUM, dtype=torch.float64)
    of = population(D, D, S, seeds)
    run = simulate(
        of.problem, method.with_init_std(STD), rank=len(SPECTRUM), learning_rate=ETA,
        steps=round(TIME / ETA), seeds=seeds, record=("singular_values",),
    )  # fmt: skip
    times = arrivals(run["singular_values"][..., : len(SPECTRUM)], S, ETA, SHARE)
    ratio = times / (promised_share * S).sqrt()
    worst = torch.gather(ratio, -1, (ratio - 1).abs().argmax(-1, keepdim=True))[..., 0]
    # A step is at most ETA/√σ of a time; the start counts for STD·√d of it.
    return Evidence(worst.numpy(), 1.0, tolerance=ALLOWED, numbers=_means(times))


SMALL, RATE, LATEST, SLOPE, POWER = 1e-8, 0.02, 30.0, 0.1, -0.8


def _descent(draws: Draws, *, promised: float) -> Evidence:
    """Exponent in σ of the time at which descent's σ_i(AB) is 0.9σ_i."""
    seeds, S = draws.seeds(), torch.tensor(SPECTRUM, dtype=torch.float64)
    of = population(D, D, S, seeds)
    run = simulate(
        of.problem, lora(init_std=SMALL), rank=len(SPECTRUM), learning_rate=RATE,
        steps=round(LATEST / RATE), seeds=seeds, record=("singular_values",),
    )  # fmt: skip
    times = arrivals(run["singular_values"][..., : len(SPECTRUM)], S, RATE, SHARE)
    return exponent(exponents(SPECTRUM, times.mT.numpy()), promised, SLOPE, **_means(times))


def _means(times: torch.Tensor) -> dict[str, float]:
    pairs = zip(SPECTRUM, times.mean(0), strict=True)
    return {f"mean time of σ = {s:g}": float(t) for s, t in pairs}


MODEL = ("𝒜 = I", "r = r*", "A₀ Gaussian of a small size, B₀ = 0", "steps short: the flow")
SIZES = f"d = k = {D}, σ = {listed(SPECTRUM)}"
CLAIMS = (
    Claim(
        id="spectral-growth/times",
        title="All singular values grow as t², and the smallest is there first",
        reference=(
            "arXiv 2602.06385, abstract: equal rates, the smaller earlier; the law t² is "
            "derivations, neighbours 10"
        ),
        statement="From α → 0 σ_i(AB) = t² until σ_i: it is at 0.9σ_i at t = √(0.9σ_i).",
        hypotheses=MODEL,
        how=(
            f"Time at which σ_i(AB) is {SHARE:g}σ_i over the law, the worst i of each draw; "
            f"{SIZES}, "
            f"A₀ of standard deviation {STD:g}, η = {ETA:g}; ± {ALLOWED:.0%}."
        ),
        kind="identity",
        measure=lambda draws: _times(draws, muon(), SHARE),
        mutant_statement="√σ_i in place of √(0.9σ_i)",
        mutant=lambda draws: _times(draws, muon(), 1.0),
        trials=4,
        smoke_trials=2,
        derivation="neighbours 10",
    ),
    Claim(
        id="spectral-growth/descent",
        title="Under gradient descent the largest is there first",
        reference=(
            "arXiv 2602.06385, abstract: largest first; the exponent is derivations, neighbours 10"
        ),
        statement="From α → 0 descent has σ_i(AB) at 0.9σ_i at a time Θ(1/σ_i): exponent −1.",
        hypotheses=MODEL,
        how=(
            f"{SIZES}, A₀ of standard deviation {SMALL:g}, η = {RATE:g}, until t = {LATEST:g}; "
            f"exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _descent(draws, promised=-1.0),
        mutant_statement=f"exponent {POWER:g}",
        mutant=lambda draws: _descent(draws, promised=POWER),
        trials=16,
        smoke_trials=12,
        derivation="neighbours 10",
        uses=("lora-one/theorem-3.2/proof",),
    ),
)
