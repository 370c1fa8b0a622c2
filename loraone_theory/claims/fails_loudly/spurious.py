"""Where descent ends under a designed 𝒜: no spurious minimum below β/α = 3; what they look like."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, listed
from loraone_theory.claims.population import gaussian, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing import rip
from loraone_theory.problems.sensing.problem import SensingProblem

D, RATE, STEPS, START = 4, 0.04, 4000, 1.5
CRITICAL, FITTED = 1e-6, 1e-3
LOW, HIGH, TIMES = 0.45, 0.97, 1.2
# Standard deviations of A₀ and B₀.
STARTS = ((0.01, 0.0), (START, START), (0.1, 0.0), (D**-0.5, 0.0), (0.01, 0.01))
PAIR, HALF, FASTER, BETA, NOT_ZERO, ALIKE = 2, 0.5, 0.03, 0.95, 0.01, 0.7


class Ends(NamedTuple):
    """Where descent ends: the loss (n,), σ(AB) (n, r), and whether it is a critical point (n,)."""

    loss: Tensor
    values: Tensor
    critical: Tensor

    @property
    def spurious(self) -> Tensor:
        """Whether it is a critical point of positive loss."""
        return self.critical & (self.loss > FITTED)


@functools.lru_cache(maxsize=2)
def _ends(seeds: tuple[int, ...], delta: float, sizes: tuple[float, float]) -> Ends:
    """From Gaussian A₀ and B₀ of these standard deviations; ‖Δ‖ = 1, r = r* = 1."""
    return _run(seeds, delta, sizes, 1, methods.lora(), RATE)


def _run(
    seeds: tuple[int, ...],
    delta: float,
    sizes: tuple[float, float],
    rank: int,
    method: methods.Method,
    rate: float,
) -> Ends:
    shift = population(D, D, spectrum(1.0, rank) / rank**0.5, seeds).problem.shift
    operator = rip.designed(D, D, delta, extreme=True, seeds=seeds)
    problem = SensingProblem.from_data(operator, operator.forward(shift), shift=shift)
    A, B = gaussian(D, rank, seeds, "A0"), gaussian(rank, D, seeds, "B0")
    run = simulate(
        problem, method, rank=rank, learning_rate=rate, steps=STEPS, every=STEPS,
        initial=Factors(sizes[0] * A, sizes[1] * B), record=("loss", "gradient_norm"),
    )  # fmt: skip
    # Some runs from large factors diverge; they come to no critical point.
    S = torch.linalg.svdvals(torch.nan_to_num(run.final.dense(), posinf=0.0, neginf=0.0))
    return Ends(run["loss"][-1], S[..., :rank], run["gradient_norm"][-1] <= CRITICAL)


def _regime(draws: Draws, *, delta: float) -> Evidence:
    """Loss at critical points that descent has come to."""
    found = _ends(draws.seeds(), delta, (START, START))
    numbers = {
        "β/α": (1 + delta) / (1 - delta),
        "share of runs that came to a critical point": float(found.critical.double().mean()),
        "share of runs that ended at a spurious one": float(found.spurious.double().mean()),
    }
    return Evidence(found.loss.numpy(), FITTED, found.critical.numpy(), numbers=numbers)


def _zero(draws: Draws, *, small: bool) -> Evidence:
    """The same from B₀ = 0 and a small A₀, or from large factors."""
    numbers = {}
    for sizes in STARTS[:2] if draws.smoke else STARTS:
        found = _ends(draws.seeds(), HIGH, sizes)
        name = f"A₀ and B₀ of standard deviations {listed(sizes)}"
        numbers[f"runs that came to a critical point, {name}"] = int(found.critical.sum())
        numbers[f"of these to a spurious one, {name}"] = int(found.spurious.sum())
    found = _ends(draws.seeds(), HIGH, STARTS[0] if small else STARTS[1])
    return Evidence(found.loss.numpy(), FITTED, found.critical.numpy(), numbers=numbers)


@functools.lru_cache(maxsize=1)
def _pairs(seeds: tuple[int, ...]) -> Ends:
    """Of rank two, where plain descent is too slow to come to a critical point."""
    method = methods.lora_momentum(beta=BETA)
    return _run(seeds, HIGH, (HALF, HALF), PAIR, method, FASTER)


def _full(draws: Draws, *, least: float) -> Evidence:
    """σ_r(AB)/σ₁(AB) at spurious critical points, above `least`."""
    found = _pairs(draws.seeds())
    ratio = found.values[:, -1] / found.values[:, 0]
    numbers: dict[str, float] = {
        "runs that came to a critical point": int(found.critical.sum()),
        "of these to a spurious one": int(found.spurious.sum()),
    }
    if found.spurious.any():
        numbers["least σ_r/σ₁ there"] = float(ratio[found.spurious].min())
    lhs = torch.full_like(ratio, least)
    return Evidence(lhs.numpy(), ratio.numpy(), found.spurious.numpy(), numbers=numbers)


def _large(draws: Draws, *, times: float) -> Evidence:
    """`times` ‖Δ‖ against ‖AB‖ at spurious critical points."""
    found = _ends(draws.seeds(), HIGH, (START, START))
    size = found.values[:, 0]
    kept = size[found.spurious]
    numbers = {
        "spurious critical points": len(kept),
        "least ‖AB‖": float(kept.min()) if len(kept) else float("nan"),
        "largest ‖AB‖": float(kept.max()) if len(kept) else float("nan"),
    }
    lhs = torch.full_like(size, times)
    return Evidence(lhs.numpy(), size.numpy(), found.spurious.numpy(), numbers=numbers)


CAME = "the run came to a critical point"
RUN = f"{STEPS} steps of {RATE:g}; critical: a gradient of at most {CRITICAL:g}"
SIZES = f"d = k = {D}, r = r*, one, A₀ and B₀ with entries of standard deviation {START:g}, {RUN}"
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
        hypotheses=(DESIGNED, "β/α < 3", "r = r* = 1", CAME),
        how=f"Loss at most {FITTED:g}; δ = {LOW:g}; {SIZES}.",
        kind="bound",
        measure=lambda draws: _regime(draws, delta=LOW),
        mutant_statement=f"δ = {HIGH:g}",
        mutant=lambda draws: _regime(draws, delta=HIGH),
        trials=400,
        smoke_trials=60,
        explanation=("What is looked at is where descent ends, not every critical point."),
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
        smoke_trials=400,
        expected=Finding.VIOLATED,
        explanation=(
            "Some are smaller than Δ, so that the size of AB does not tell a failure. The "
            "theorem's "
            "bound is in its constants, which were not read, and is not touched."
        ),
    ),
    Claim(
        id="fails-loudly/zero-start",
        title="A start at B₀ = 0 does not end at them",
        reference=(
            "arXiv 2502.09376, abstract: zero initialisation leads to where global minima lie; "
            "'at no other' is our reading of it"
        ),
        statement="From B₀ = 0 and small A₀ critical points that descent comes to have loss zero.",
        hypotheses=(DESIGNED, "r = r* = 1", "B₀ = 0, A₀ Gaussian and small", CAME),
        how=(
            f"Loss at most {FITTED:g}; δ = {HIGH:g}; d = k = {D}, A₀ of standard deviation "
            f"{STARTS[0][0]:g}, others among the numbers, {RUN}."
        ),
        kind="bound",
        measure=lambda draws: _zero(draws, small=True),
        mutant_statement=f"from A₀ and B₀ of standard deviation {START:g}",
        mutant=lambda draws: _zero(draws, small=False),
        trials=800,
        smoke_trials=200,
        expected=Finding.VIOLATED,
        explanation=(
            "About half as many runs end at a spurious point as from large factors, not none. It "
            "is the size of A₀ that helps and not B₀ = 0: two small factors do as well, and A₀ "
            "with N(0, 1/d) entries does not."
        ),
    ),
    Claim(
        id="fails-loudly/full-rank",
        title="Spurious minima have full rank",
        reference="arXiv 2502.09376, abstract: high rank; full rank by derivations, neighbours 13",
        statement="At spurious critical points that descent comes to rank AB = r.",
        hypotheses=(DESIGNED, f"r = r* = {PAIR}", "the run came to one of positive loss"),
        how=(
            f"σ_r(AB)/σ₁(AB) at least {NOT_ZERO:g}; δ = {HIGH:g}, d = k = {D}, A₀ and B₀ of "
            f"standard deviation {HALF:g}, {STEPS} steps of {FASTER:g} with momentum {BETA:g}; "
            f"critical: a gradient of at most {CRITICAL:g}."
        ),
        kind="bound",
        measure=lambda draws: _full(draws, least=NOT_ZERO),
        mutant_statement=f"σ_r(AB)/σ₁(AB) at least {ALIKE:g}",
        mutant=lambda draws: _full(draws, least=ALIKE),
        trials=1600,
        smoke_trials=400,
        explanation=(
            "They are rarer than at r = 1, and plain descent is mostly still on its way when its "
            "steps are over."
        ),
        uses=("fails-loudly/escape",),
    ),
)
