"""T4.2 over κ, r* and d, with the shift of Assumption 4.1, and the N that ρ ≤ 1/20 takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, listed
from loraone_theory.claims.lora_one.paper.base import (
    ASSUMED,
    HYPOTHESES,
    KEPT,
    LEVEL,
    SHARE,
    START,
    STATEMENT,
    UNTIL,
    Regime,
    within_bound,
)
from loraone_theory.core.linalg import truncated_svd
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.relu.sampling import sample_relu

# Of the grid. With one direction κ says nothing, so it is taken once.
OUTPUTS, WIDTHS, CONDITION_NUMBERS, RANKS, ETA, STEPS = (
    12,
    (10, 50),
    (1.0, 3.0, 10.0),
    (1, 2, 4),
    0.9,
    84,
)
STRONGER = 0.6


def assumed_shift(kappa: float, rank: int) -> float:
    """c of order 1/(κr*), at which ρ₀ ≤ (c/π)F ≤ (c/π)κ√r* is at most `SHARE`/20."""
    return SHARE * math.pi / 20 / (kappa * rank)


def grid() -> Iterator[Regime]:
    """Every d, r* and κ, at N = ∞."""
    for d in WIDTHS:
        for rank in RANKS:
            for kappa in CONDITION_NUMBERS if rank > 1 else CONDITION_NUMBERS[:1]:
                shift = assumed_shift(kappa, rank)
                yield Regime(
                    d, OUTPUTS, rank, None, shift=shift, kappa=kappa, etas=(ETA,), steps=STEPS
                )


def _over_grid(draws: Draws, *, strength: float) -> Evidence:
    regimes = list(grid())
    return within_bound(draws, regimes, small=regimes[1:7:3], strength=strength, start=START)


# Of the sample size: groups of draws, and what is varied: κ, r* or d, with the others there.
GROUP, CHUNK, SAMPLED_SHIFT = 16, 4, 0.002
SERIES = {
    "κ": [(8, 2, kappa) for kappa in CONDITION_NUMBERS],
    "r*": [(16, rank, 1.0) for rank in RANKS],
    "d": [(d, 2, 1.0) for d in (8, 16, 32)],
}
PROMISED = {"κ": 2.0, "r*": 2.0, "d": 1.0}
LESS = 1.5


def needed(d: int, rank: int, kappa: float, seeds: tuple[int, ...]) -> float:
    """N at which the root mean square of ρ₀ is 1/20, from ρ₀ at a quarter of the predicted one.

    There ρ₀ is 1/10; it falls like N^{−1/2} (derivations 5.3).
    """
    F2 = float((np.geomspace(kappa, 1.0, rank) ** 2).sum())
    samples, found = round(100 * F2 * d * (1 + 3 * rank / d)), []
    for first in range(0, len(seeds), CHUNK):
        problem = sample_relu(
            d=d, k=d, true_rank=rank, samples=samples, condition_number=kappa,
            relative_shift=SAMPLED_SHIFT, seeds=seeds[first : first + CHUNK],
        )  # fmt: skip
        U, S, V = truncated_svd(problem.one_step_gradient(), rank)
        shift = problem.shift.dense()
        miss = torch.linalg.matrix_norm(2 * (U * S[..., None, :]) @ V.mT - shift)
        found.append((miss / torch.linalg.svdvals(shift)[..., rank - 1]).numpy())
    return samples * float((np.concatenate(found) ** 2).mean()) / START**2


@functools.lru_cache(maxsize=1)
def _exponents(draws: Draws) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Exponent of N* in κ, r* and d, one for each group of draws."""
    found, numbers = {}, {}
    for place, (name, settings) in enumerate(SERIES.items()):
        rows = []
        for setting in settings:
            seeds = draws.seeds(GROUP * draws.trials, block=f"{setting}")
            groups = [seeds[i * GROUP : (i + 1) * GROUP] for i in range(draws.trials)]
            rows.append([needed(*setting, seeds=group) for group in groups])
            d, rank, kappa = setting
            numbers[f"N* at d = {d}, r* = {rank}, κ = {kappa:g}"] = float(np.mean(rows[-1]))
        x = [(setting[2], setting[1], setting[0])[place] for setting in settings]
        found[name] = stats.slopes(np.log(x), np.log(np.array(rows)))
        numbers[f"exponent in {name}"] = float(found[name].mean())
    return found, numbers


def _sample_size(draws: Draws, *, kappa: float) -> Evidence:
    found, numbers = _exponents(draws)
    promised = PROMISED | {"κ": kappa}
    rhs = np.concatenate([np.full(len(found[name]), promised[name]) for name in found])
    return Evidence(np.concatenate(list(found.values())), rhs, numbers=numbers)


# Of the finite N: κ, r* and d at their largest.
LARGE = Regime(
    50, 8, RANKS[-1], 100_000, shift=assumed_shift(10.0, RANKS[-1]) / 2, kappa=10.0, etas=(ETA,),
    steps=45,
)  # fmt: skip
SMALL = replace(LARGE, d=5, k=4, true_rank=2, ratio=40_000, kappa=3.0)


def errors(regime: Regime, seeds: Sequence[int], eta: float) -> tuple[np.ndarray, np.ndarray]:
    """‖E_t‖ (t, n) of the runs at one η, and ρ₀ (n,)."""
    problem = regime.problem(seeds)
    least = torch.linalg.svdvals(problem.shift.dense())[..., regime.true_rank - 1].numpy()
    run = simulate(
        problem, "lora-one-preconditioned", rank=regime.true_rank, learning_rate=eta,
        steps=regime.steps, record=("error",),
    )  # fmt: skip
    error = run["error"].numpy()
    return error, error[0] / least


@functools.lru_cache(maxsize=1)
def _large(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """‖E_t‖ (t, n) and ρ₀ (n,), one draw at a time."""
    regime, parts = SMALL if draws.smoke else LARGE, []
    for seed in draws.seeds():
        parts.append(errors(regime, (seed,), ETA))
    return tuple(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _finite(draws: Draws, *, strength: float) -> Evidence:
    error, rho = _large(draws)
    relative, t = error / error[0], np.arange(len(error))[:, None]
    ratio = np.where((relative > LEVEL) & (t > 0), relative / (1 - strength * ETA) ** t, 0.0)
    numbers = {
        "mean of ρ₀": float(rho.mean()),
        "largest ρ₀": float(rho.max()),
        "largest ratio to the bound": float(ratio.max()),
        "largest ‖E_t‖/‖E₀‖ at the end": float(relative[-1].max()),
    }
    return Evidence(ratio.max(0), 1.0, inside=rho <= START, probability=0.99, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/theorem-4.2/grid",
        title="The bound over κ, r* and d, with the shift of Assumption 4.1",
        reference="Theorem 4.2",
        statement=STATEMENT,
        hypotheses=(
            *HYPOTHESES,
            "Assumption 4.1 with the relative shift c = 0.9π/(20κr*)",
            "N = ∞, so that ε = 0; ρ₀ ≤ 1/20, checked on every draw",
            "η in (c_η, 1)",
        ),
        how=(
            f"{UNTIL} k = {OUTPUTS}, η = {ETA:g}, d = {listed(WIDTHS)}, r = r* = {listed(RANKS)}, "
            f"κ = {listed(CONDITION_NUMBERS)} (where there is more than one direction). {KEPT}"
        ),
        kind="probability",
        measure=lambda draws: _over_grid(draws, strength=0.25),
        mutant_statement=f"(1 − {STRONGER:g}η)ᵗ in place of (1 − η/4)ᵗ",
        mutant=lambda draws: _over_grid(draws, strength=STRONGER),
        trials=1200,
        smoke_trials=60,
        derivation="5.4",
        figure="fig_t42_map.png",
        uses=("lora-one/relu/one-step/bound", "lora-one/relu/rates"),
    ),
    Claim(
        id="lora-one/theorem-4.2/sample-size",
        title="N of order r*²κ²d is enough for ρ₀ ≤ 1/20",
        reference="Theorem 4.2, ε = O(1/(r*κ√d)) with N of order 1/ε²",
        statement=(
            "The N at which ρ₀ falls to 1/20 grows with exponents of at most 2 in r*, 2 in κ and "
            "1 in d."
        ),
        hypotheses=("Gaussian inputs", "Spectral-init with γ = 2, r = r*", "c → 0"),
        how=(
            "d = k; "
            + "; ".join(
                f"in {name}: (d, r*, κ) = " + ", ".join(f"({listed(s)})" for s in settings)
                for name, settings in SERIES.items()
            )
            + f"; c = {SAMPLED_SHIFT:g}, root mean squares over groups of {GROUP} draws, a slope "
            "for each group."
        ),
        kind="bound",
        measure=lambda draws: _sample_size(draws, kappa=2.0),
        mutant_statement=f"at most {LESS:g} in κ",
        mutant=lambda draws: _sample_size(draws, kappa=LESS),
        trials=4,
        smoke_trials=2,
        explanation=(
            "N* is about 480F²d with F² = ‖Δ‖_F²/λ*_{r*}² (derivations 5.3), between r*d and "
            "r*κ²d: κ² only where the spectrum is spread, and r* where the condition has r*². "
            "At small d the constant grows with r*/d."
        ),
        derivation="5.3",
        uses=("lora-one/relu/one-step/finite-n",),
    ),
    Claim(
        id="lora-one/theorem-4.2/large",
        title="The bound at finite N, for large κ, r* and d at once",
        reference="Theorem 4.2",
        statement=STATEMENT,
        hypotheses=(*HYPOTHESES, ASSUMED, "ρ₀ ≤ 1/20, checked on every draw; η in (c_η, 1)"),
        how=f"{LARGE}; {SMALL} in a smoke run.",
        kind="probability",
        measure=lambda draws: _finite(draws, strength=0.25),
        mutant_statement=f"(1 − {STRONGER:g}η)ᵗ in place of (1 − η/4)ᵗ",
        mutant=lambda draws: _finite(draws, strength=STRONGER),
        trials=3,
        smoke_trials=3,
        cap=3,
        long=True,
        expected=Finding.INCONCLUSIVE,
        explanation=(
            "Millions of samples a draw: what is measured on these draws is among the numbers, "
            "and is no probability of 0.99."
        ),
        derivation="5.4",
        uses=("lora-one/lemma-d.5", "lora-one/relu/rates/finite-n"),
    ),
)
