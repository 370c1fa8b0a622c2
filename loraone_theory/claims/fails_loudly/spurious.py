"""Where descent ends under a designed 𝒜: no spurious minimum below β/α = 3; what they look like."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.population import gaussian, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing import rip
from loraone_theory.problems.sensing.problem import SensingProblem

D, RATE, STEPS, START = 4, 0.04, 4000, 1.5
CRITICAL, FITTED = 1e-6, 1e-3
LOW, HIGH, TIMES = 0.45, 0.97, 1.2


def _ends(draws: Draws, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient norm and ‖AB‖ at the end, from large Gaussian factors; ‖Δ‖ = 1, r = r* = 1."""
    seeds = draws.seeds()
    shift = population(D, D, spectrum(1.0, 1), seeds).problem.shift
    operator = rip.designed(D, D, delta, extreme=True, seeds=seeds)
    problem = SensingProblem.from_data(operator, operator.forward(shift), shift=shift)
    start = Factors(START * gaussian(D, 1, seeds, "A0"), START * gaussian(1, D, seeds, "B0"))
    run = simulate(
        problem, "lora", rank=1, learning_rate=RATE, steps=STEPS, every=STEPS, initial=start,
        record=("loss", "gradient_norm", "nuclear_norm"),
    )  # fmt: skip
    return run["loss"][-1], run["gradient_norm"][-1], run["nuclear_norm"][-1]


def _regime(draws: Draws, *, delta: float) -> Evidence:
    """Loss at critical points that descent has come to."""
    loss, gradient, _ = _ends(draws, delta)
    there = gradient <= CRITICAL
    numbers = {
        "β/α": (1 + delta) / (1 - delta),
        "share of runs that came to a critical point": float(there.double().mean()),
        "share of runs that ended at a spurious one": float(
            (there & (loss > FITTED)).double().mean()
        ),
    }
    return Evidence(loss.numpy(), FITTED, inside=there.numpy(), numbers=numbers)


def _large(draws: Draws, *, times: float) -> Evidence:
    """`times` ‖Δ‖ against ‖AB‖ at spurious critical points."""
    loss, gradient, size = _ends(draws, HIGH)
    spurious = (gradient <= CRITICAL) & (loss > FITTED)
    kept = size[spurious]
    numbers = {
        "spurious critical points": int(spurious.sum()),
        "least ‖AB‖": float(kept.min()) if len(kept) else float("nan"),
        "largest ‖AB‖": float(kept.max()) if len(kept) else float("nan"),
    }
    lhs = torch.full_like(size, times)
    return Evidence(lhs.numpy(), size.numpy(), inside=spurious.numpy(), numbers=numbers)


SIZES = (
    f"d = k = {D}, r = r*, one, A₀ and B₀ with entries of standard deviation {START:g}, {STEPS} "
    "steps "
    f"of {RATE:g}; critical: a gradient of at most {CRITICAL:g}"
)
DESIGNED = "𝒜*𝒜/m = I + δT, T of eigenvalues ±1: β/α = (1 + δ)/(1 − δ) by construction"
CLAIMS = (
    Claim(
        id="fails-loudly/special-regime",
        title="No spurious minimum where the loss is well conditioned",
        reference=(
            "arXiv 2502.09376, abstract: a special regime; its threshold β/α = 3 from memory, "
            "not read"
        ),
        statement="β/α < 3: critical points that descent comes to have loss zero.",
        hypotheses=(DESIGNED, "β/α < 3", "r = r* = 1", "the run came to a critical point"),
        how=f"Loss at most {FITTED:g}; δ = {LOW:g}; {SIZES}.",
        kind="bound",
        measure=lambda draws: _regime(draws, delta=LOW),
        mutant_statement=f"δ = {HIGH:g}",
        mutant=lambda draws: _regime(draws, delta=HIGH),
        trials=400,
        smoke_trials=60,
        explanation=(
            "What is looked at is where descent ends, not every critical point; a rank above one "
            "is "
            "not tested."
        ),
    ),
    Claim(
        id="fails-loudly/large",
        title="Spurious minima are large",
        reference=(
            "arXiv 2502.09376, abstract: high rank and large magnitude; 'larger than Δ' is our "
            "reading of it"
        ),
        statement="Spurious minima have ‖AB‖ ≥ ‖Δ‖.",
        hypotheses=(DESIGNED, "the run came to a critical point of positive loss"),
        how=f"δ = {HIGH:g}; {SIZES}.",
        kind="bound",
        measure=lambda draws: _large(draws, times=1.0),
        mutant_statement=f"‖AB‖ ≥ {TIMES:g}‖Δ‖",
        mutant=lambda draws: _large(draws, times=TIMES),
        trials=400,
        smoke_trials=100,
        expected=Finding.VIOLATED,
        explanation=(
            "Some are smaller than Δ, so that the size of AB does not tell a failure. The "
            "theorem's "
            "bound is in its constants, which were not read, and is not touched."
        ),
    ),
)
