"""3.8: how many samples the hypothesis ‖Σ̂ − I‖_op ≤ 1/(2κ) takes."""

from __future__ import annotations

import math

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

D = 1000
WIDTHS, SMALL_WIDTHS, RATIO, CONDITION_NUMBERS = (100, 1000, 10_000), (100, 1000), 16, (1, 2, 4, 8)


def _edge(ratio: float) -> float:
    """(1 + √(d/N))² − 1 at N = ratio·d."""
    return (1 + ratio**-0.5) ** 2 - 1


def _needed(kappa: float) -> float:
    """The N/d at which the edge is 1/(2κ)."""
    return (math.sqrt(1 + 1 / (2 * kappa)) - 1) ** -2


def _allowance(d: int, ratio: float) -> float:
    """Twice the width σ of the largest eigenvalue's fluctuations (Tracy–Widom).

    σ = (√N + √d)(1/√N + 1/√d)^{1/3}/N; the mean lies 1.21σ below the edge.
    """
    N = ratio * d
    root_N, root_d = math.sqrt(N), math.sqrt(d)
    return 2 * (root_N + root_d) * (1 / root_N + 1 / root_d) ** (1 / 3) / N


def _deviations(draws: Draws, ratio: float, block: int, d: int = D) -> np.ndarray:
    """‖Σ̂ − I‖_op of exact-law instances with N = ratio·d."""
    problem = sample_linear_matrix_free(
        d=d, k=2, true_rank=1, samples=round(ratio * d), seeds=draws.seeds(block=block)
    )
    return problem.covariance_deviation().numpy()


def _concentrates(draws: Draws, *, squared: bool) -> Evidence:
    """ε against (1 + √(d/N))² − 1 at N/d = 16, over three widths; the mutant drops the square."""
    ratio = float(RATIO)
    promised = _edge(ratio) if squared else ratio**-0.5
    found, allowed, numbers = [], [], {"edge": _edge(ratio)}
    for block, d in enumerate(SMALL_WIDTHS if draws.smoke else WIDTHS):
        values = _deviations(draws, ratio, block, d)
        found.append(values)
        allowed.append(np.full(len(values), 3 * _allowance(d, ratio)))
        numbers[f"mean of ‖Σ̂ − I‖_op, d = {d}"] = float(values.mean())
        numbers[f"standard deviation, d = {d}"] = float(values.std(ddof=1))
    return Evidence(
        np.concatenate(found), promised, tolerance=np.concatenate(allowed), numbers=numbers
    )


def _threshold(draws: Draws, *, power: int) -> Evidence:
    """2κε at the N/d promised for κ; the mutant lets N/d grow like κ instead of κ²."""
    found, allowed, numbers = [], [], {}
    for block, kappa in enumerate(map(float, CONDITION_NUMBERS)):
        ratio = _needed(kappa) if power == 2 else _needed(1.0) * kappa
        values = 2 * kappa * _deviations(draws, ratio, block)
        found.append(values)
        allowed.append(np.full(len(values), 3 * 2 * kappa * _allowance(D, ratio)))
        numbers[f"N/d at κ = {kappa:g}"] = ratio
        numbers[f"mean of 2κ‖Σ̂ − I‖_op there, κ = {kappa:g}"] = float(values.mean())
    return Evidence(np.concatenate(found), 1.0, tolerance=np.concatenate(allowed), numbers=numbers)


_ALLOWED = "three times twice the Tracy–Widom width: mean, fluctuation and its tail"

CLAIMS = (
    Claim(
        id="lora-one/linear/sample-size",
        aliases=("3.8",),
        title="‖Σ̂ − I‖_op concentrates at the Marchenko–Pastur edge",
        reference="derivations 3.8; Eq. 8",
        statement="‖Σ̂ − I‖_op = (1 + √(d/N))² − 1 + O(d^{−2/3}); 0.5625 at N = 16d.",
        hypotheses=("Gaussian inputs",),
        how=f"Exact-law instances, N = {RATIO}d, d = {listed(WIDTHS)}; allowed is {_ALLOWED}.",
        kind="identity",
        measure=lambda draws: _concentrates(draws, squared=True),
        mutant_statement="√(d/N), without the square",
        mutant=lambda draws: _concentrates(draws, squared=False),
        trials=200,
        smoke_trials=30,
        derivation="3.8",
        uses=("lora-one/linear/exact-law",),
    ),
    Claim(
        id="lora-one/linear/sample-size/needed",
        aliases=("3.8/samples",),
        title="ε ≤ 1/(2κ) takes N of order κ²d",
        reference="derivations 3.8; Eq. 8",
        statement=(
            "‖Σ̂ − I‖_op reaches 1/(2κ) at N/d = (√(1 + 1/(2κ)) − 1)^{−2}: 19.8 at κ = 1, about "
            "16κ² for large κ."
        ),
        hypotheses=("Gaussian inputs",),
        how=(
            f"‖Σ̂ − I‖_op over the bound at that N/d for κ = {listed(CONDITION_NUMBERS)}, d = "
            f"{D}; allowed is "
            f"{_ALLOWED}."
        ),
        kind="identity",
        measure=lambda draws: _threshold(draws, power=2),
        mutant_statement="N of order κd",
        mutant=lambda draws: _threshold(draws, power=1),
        trials=200,
        smoke_trials=30,
        derivation="3.8",
        uses=("lora-one/linear/sample-size",),
    ),
)
