"""4: restricted isometry, of dense measurements within Gordon's bounds, of others exactly."""

from __future__ import annotations

import math

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.sensing import rip
from loraone_theory.problems.sensing.operators import Completion, Dense, MultiResponse, RankOne
from loraone_theory.problems.sensing.sampling import sample_sensing

D, RANK, MEASUREMENTS = 12, 4, 300
BEYOND = 0.6
WIDTH, OUT, SAMPLES, RANKS = 8, 4, 60, (1, 2)
SIDE, REPEATED, DISTINCT = 6, 50, 30
# Products of norms far above the measurements, so that one of them alone is most of the sum.
HIGH, PRODUCTS = 16, 12
SQUARE, DELTA = 4, 0.3


def _gordon(draws: Draws, *, share: float) -> Evidence:
    """√(m sup ‖𝒜M‖²/m) − √m, which exceeds w + t with probability below e^{−t²/2}."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=D, true_rank=1, measurements=MEASUREMENTS, seeds=draws.seeds()
    )
    assert isinstance(problem.operator, Dense)
    found = rip.estimate(problem.operator, RANK, 1, sweeps=25, tolerance=1e-3)
    excess = MEASUREMENTS**0.5 * ((1 + found.upper.numpy()) ** 0.5 - 1)
    top, _ = rip.gordon_bounds(D, D, RANK, MEASUREMENTS)
    width = MEASUREMENTS**0.5 * ((1 + top) ** 0.5 - 1)
    return Evidence(
        excess,
        share * width + BEYOND,
        probability=1 - math.exp(-(BEYOND**2) / 2),
        numbers={"mean √(m(1 + upper side)) − √m": float(excess.mean()), "w": width},
    )


def _below(draws: Draws, *, share: float) -> Evidence:
    """√m − inf ‖𝒜M‖, which exceeds w + t with probability below e^{−t²/2}."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=D, true_rank=1, measurements=MEASUREMENTS, seeds=draws.seeds()
    )
    assert isinstance(problem.operator, Dense)
    found = rip.estimate(problem.operator, RANK, 1, sweeps=25, tolerance=1e-3)
    lack = MEASUREMENTS**0.5 * (1 - (1 - found.lower.numpy()).clip(0) ** 0.5)
    _, bottom = rip.gordon_bounds(D, D, RANK, MEASUREMENTS)
    width = MEASUREMENTS**0.5 * (1 - (1 - bottom) ** 0.5)
    return Evidence(
        lack,
        share * width + BEYOND,
        probability=1 - math.exp(-(BEYOND**2) / 2),
        numbers={"mean √m − √(m(1 − lower side))": float(lack.mean()), "w": width},
    )


def _rank_one(draws: Draws, *, share: float) -> Evidence:
    """The upper side at M = x_iz_iᵀ of the largest ‖x_i‖‖z_i‖."""
    problem = sample_sensing(
        ensemble="rank-one", d=HIGH, k=HIGH, true_rank=1, measurements=PRODUCTS, seeds=draws.seeds()
    )
    operator = problem.operator
    assert isinstance(operator, RankOne)
    sizes = (operator.X**2).sum(-1) * (operator.Z**2).sum(-1)
    top, at = sizes.max(-1)
    each = torch.arange(len(at))
    M = Factors(operator.X[each, at][..., None], operator.Z[each, at][:, None])
    reached = rip.quotient(operator, M) - 1
    return Evidence((share * top / PRODUCTS - 1).numpy(), reached.numpy())


def _designed(draws: Draws, *, share: float) -> Evidence:
    """What a search finds, which at full rank is δ itself, against δ."""
    found = []
    for rank in (1, SQUARE):
        operator = rip.designed(SQUARE, SQUARE, DELTA, seeds=draws.seeds())
        found.append(rip.estimate(operator, rank, 2).delta.numpy())
    # Eigenvalues of I + δT, of T by d²-fold products.
    return Evidence(np.concatenate(found), share * DELTA, tolerance=1e2 * SQUARE**2 * EPS)


def _multi_response(draws: Draws, *, edge: bool) -> Evidence:
    """The search's constant against ‖Σ̂ − I‖; the mutant's is that of N, d → ∞."""
    seeds = draws.seeds()
    problem = sample_sensing(
        ensemble="multi-response",
        d=WIDTH,
        k=OUT,
        true_rank=1,
        measurements=OUT * SAMPLES,
        seeds=seeds,
    )
    assert isinstance(problem.operator, MultiResponse)
    found = np.concatenate(
        [rip.estimate(problem.operator, rank, 2).delta.numpy() for rank in RANKS]
    )
    linear = sample_linear(d=WIDTH, k=OUT, true_rank=1, samples=SAMPLES, seeds=seeds)
    expected = np.tile(linear.covariance_deviation().numpy(), 2)
    if edge:
        expected = np.full_like(expected, (1 + (WIDTH / SAMPLES) ** 0.5) ** 2 - 1)
    # The search stops where a sweep changes the value by less than 1e-6 of itself.
    return Evidence(found, expected, tolerance=1e-4)


def _completion(draws: Draws, *, less: float) -> Evidence:
    """Both sides against the counts of the entries."""
    d, values, promised = SIDE, [], []
    for replace in (True, False):
        count = REPEATED if replace else DISTINCT
        problem = sample_sensing(
            ensemble="completion", d=d, k=d, true_rank=1, measurements=count, replace=replace,
            seeds=draws.seeds(),
        )  # fmt: skip
        assert isinstance(problem.operator, Completion)
        bounds = rip.estimate(problem.operator, 1)
        flat = (problem.operator.rows * d + problem.operator.columns).numpy()
        counts = np.stack([np.bincount(row, minlength=d * d) for row in flat])
        values += [bounds.upper.numpy(), bounds.lower.numpy()]
        promised += [d * d / count * counts.max(1) - less, 1 - d * d / count * counts.min(1)]
    return Evidence(np.concatenate(values), np.concatenate(promised), tolerance=1e2 * EPS)


CLAIMS = (
    Claim(
        id="sensing/gordon",
        title="Gordon's bound on the isometry constant",
        reference="derivations, sensing 4",
        statement=(
            "sup ‖𝒜M‖²/m <= (1 + (w + t)/√m)² with probability 1 − e^{−t²/2}, "
            "w = E(Σ_{i≤r} s_i²)^{1/2} of a Gaussian d×k matrix."
        ),
        hypotheses=("dense Gaussian measurements", "rank M <= r, ‖M‖ = 1"),
        how=(
            f"What a search finds, a lower bound on the supremum; d = k = {D}, r = {RANK}, "
            f"m = {MEASUREMENTS}, t = {BEYOND:g}."
        ),
        kind="probability",
        measure=lambda draws: _gordon(draws, share=1.0),
        mutant_statement="0.8 w in place of w",
        mutant=lambda draws: _gordon(draws, share=0.8),
        trials=80,
        smoke_trials=160,
        explanation="The search can only find lower bounds, so it could miss a violation.",
        derivation="sensing 4",
        figure="fig_rip.png",
    ),
    Claim(
        id="sensing/isometry/multi-response",
        title="The isometry constant of multi-response measurements",
        reference="derivations, sensing 4",
        statement="δ_r = ‖Σ̂ − I‖_op for every r >= 1.",
        hypotheses=("multi-response measurements",),
        how=f"The search at ranks {RANKS}; d = {WIDTH}, k = {OUT}, N = {SAMPLES}.",
        kind="identity",
        measure=lambda draws: _multi_response(draws, edge=False),
        mutant_statement="(1 + √(d/N))² − 1, the edge of Σ̂'s spectrum for wide d",
        mutant=lambda draws: _multi_response(draws, edge=True),
        trials=50,
        smoke_trials=6,
        derivation="sensing 4",
    ),
    Claim(
        id="sensing/isometry/completion",
        title="Completion has no isometry",
        reference="derivations, sensing 4",
        statement=(
            "The lower side of δ₁ is 1 as soon as an entry is missing, the upper one is "
            "dk/m·max count − 1."
        ),
        hypotheses=("completion",),
        how=f"d = k = {SIDE}, m = {REPEATED} with replacement and {DISTINCT} without.",
        kind="identity",
        measure=lambda draws: _completion(draws, less=1.0),
        mutant_statement="dk/m·(max count − 1)",
        mutant=lambda draws: _completion(draws, less=SIDE**2 / REPEATED),
        trials=200,
        smoke_trials=10,
        derivation="sensing 4",
    ),
    Claim(
        id="sensing/gordon/below",
        title="Gordon's bound on the lower side",
        reference="derivations, sensing 4",
        statement="inf ‖𝒜M‖ >= √m − w − t with probability 1 − e^{−t²/2}, w as above.",
        hypotheses=("dense Gaussian measurements", "rank M <= r, ‖M‖ = 1"),
        how=(
            f"What a search finds, an upper bound on the infimum; d = k = {D}, r = {RANK}, "
            f"m = {MEASUREMENTS}, t = {BEYOND:g}."
        ),
        kind="probability",
        measure=lambda draws: _below(draws, share=1.0),
        mutant_statement="0.8 w in place of w",
        mutant=lambda draws: _below(draws, share=0.8),
        trials=80,
        smoke_trials=80,
        explanation="The search can only find upper bounds, so it could miss a violation.",
        derivation="sensing 4",
        figure="fig_rip.png",
    ),
    Claim(
        id="sensing/isometry/rank-one",
        title="Rank-one measurements are far from isometric",
        reference="derivations, sensing 4",
        statement="δ₁ >= max_i ‖x_i‖²‖z_i‖²/m − 1, at M = x_iz_iᵀ.",
        hypotheses=("rank-one measurements",),
        how=f"The upper side there; d = k = {HIGH}, m = {PRODUCTS}.",
        kind="bound",
        measure=lambda draws: _rank_one(draws, share=1.0),
        mutant_statement="1.2 times max_i ‖x_i‖²‖z_i‖²/m",
        mutant=lambda draws: _rank_one(draws, share=1.2),
        trials=200,
        smoke_trials=10,
        derivation="sensing 4",
    ),
    Claim(
        id="sensing/isometry/designed",
        title="Operators of a chosen isometry constant",
        reference="derivations, sensing 4",
        statement="𝒜*𝒜/m = I + δT with ‖T‖ = 1 has δ_r <= δ for every r, and δ at full rank.",
        hypotheses=("designed measurements",),
        how=f"A search at ranks one and {SQUARE}; d = k = {SQUARE}, δ = {DELTA:g}.",
        kind="bound",
        measure=lambda draws: _designed(draws, share=1.0),
        mutant_statement="δ_r <= 0.9 δ",
        mutant=lambda draws: _designed(draws, share=0.9),
        trials=100,
        smoke_trials=6,
        derivation="sensing 4",
    ),
)
