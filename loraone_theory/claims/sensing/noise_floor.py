"""1.5: what label noise leaves at the end: full fine-tuning, the true rank, and beyond it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import half_square, least_loss, ratios
from loraone_theory.core import linalg
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

D, K, TRUE_RANK, SAMPLES = 16, 12, 2, 160
# The first order in σ is what is claimed: σ(√d + √k)/√N = 0.012 of λ* = 1, whose square counts.
NOISE = 0.02
RANK = 4
ALLOWANCE = 0.03
# Few samples and inputs, where tr Σ̂⁻¹/d and its mean off UᵀΣ̂U are far apart. What is of higher
# order is about (σ(√d + √k)/√N)² and more in the directions that Σ̂ has little of.
FEW: dict[str, Any] = {"d": 8, "k": 8, "true_rank": 4, "samples": 24, "noise_std": 1e-3}
MORE = 2


def _instances(draws: Draws) -> LinearProblem:
    return sample_linear_matrix_free(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=NOISE, seeds=draws.seeds()
    )


def _full(draws: Draws, *, degrees: int) -> Evidence:
    """`degrees`: what is taken from N."""
    problem = _instances(draws)
    Sigma = problem.covariance.apply(torch.eye(D, dtype=torch.float64))
    fit = torch.linalg.solve(Sigma, problem.one_step_gradient().dense())
    law = NOISE**2 / 2 * K * D / (SAMPLES - degrees)
    return ratios(half_square(fit - problem.shift.dense()), law, ALLOWANCE)


def _written_out(problem: LinearProblem, columns: int) -> Tensor:
    """(σ²/2N)[r tr Σ̂⁻¹ + `columns`·tr((UᵀΣ̂U)⁻¹)]."""
    U, _, _ = linalg.truncated_svd(problem.shift, TRUE_RANK)
    Sigma = problem.covariance.apply(torch.eye(D, dtype=torch.float64))
    first = torch.linalg.inv(Sigma).diagonal(dim1=-2, dim2=-1).sum(-1)
    inner = torch.linalg.inv(U.mT @ Sigma @ U).diagonal(dim1=-2, dim2=-1).sum(-1)
    return NOISE**2 / (2 * SAMPLES) * (TRUE_RANK * first + columns * inner)


def _given(draws: Draws, *, columns: int) -> Evidence:
    problem = _instances(draws)
    return ratios(least_loss(problem, TRUE_RANK), _written_out(problem, columns), ALLOWANCE)


def _mean(draws: Draws, *, wrong: bool) -> Evidence:
    law = predict.mean_noise_floor(samples=SAMPLES, d=D, k=K, rank=TRUE_RANK, noise_std=NOISE)
    if wrong:
        law = NOISE**2 / 2 * TRUE_RANK * (D + K - TRUE_RANK) / SAMPLES
    return ratios(least_loss(_instances(draws), TRUE_RANK), law, ALLOWANCE)


def _surplus(draws: Draws, *, edge: bool) -> Evidence:
    size: dict[str, Any] = {"samples": SAMPLES, "d": D, "k": K, "noise_std": NOISE}
    law = predict.mean_noise_floor(rank=TRUE_RANK, **size)
    if edge:
        top = ((D - TRUE_RANK) ** 0.5 + (K - TRUE_RANK) ** 0.5) ** 2
        share = (SAMPLES - 1) / ((SAMPLES - D - 1) * (SAMPLES - TRUE_RANK - 1))
        law += NOISE**2 / 2 * share * (RANK - TRUE_RANK) * top
    else:
        law += predict.surplus(rank=RANK, true_rank=TRUE_RANK, **size)
    return ratios(least_loss(_instances(draws), RANK), law, ALLOWANCE)


def _surplus_given(draws: Draws, *, everywhere: bool) -> Evidence:
    """What MORE ranks cost over the rank r*; the mutant takes Σ̂⁻¹ in the mean of all of R^d."""
    problem, true = sample_linear_matrix_free(seeds=draws.seeds(), **FEW), FEW["true_rank"]
    more = least_loss(problem, true + MORE) - least_loss(problem, true)
    sigma = FEW["noise_std"]
    low, high = (predict.noise_floor(problem, noise_std=sigma, rank=true + i) for i in (0, MORE))
    law = high - low
    if everywhere:
        U, _, _ = linalg.truncated_svd(problem.shift, true)
        Sigma = problem.covariance.apply(torch.eye(FEW["d"], dtype=torch.float64))
        whole = torch.linalg.inv(Sigma).diagonal(dim1=-2, dim2=-1).sum(-1)
        inner = torch.linalg.inv(U.mT @ Sigma @ U).diagonal(dim1=-2, dim2=-1).sum(-1)
        law = law * whole / FEW["d"] * (FEW["d"] - true) / (whole - inner)
    return ratios(more, law, ALLOWANCE)


_SIZES = f"d = {D}, k = {K}, r* = {TRUE_RANK}, N = {SAMPLES}, σ = {NOISE}"
_HYPOTHESES = ("linear model", "Gaussian inputs", "N > d + 1")
_SMALL = "σ(√d + √k)/√N small against λ*_{r*}"

CLAIMS = (
    Claim(
        id="sensing/noise-floor/full",
        title="Full fine-tuning of noisy labels",
        reference="derivations, sensing 1.5",
        statement="Full fine-tuning ends at the mean risk ½σ²kd/(N − d − 1).",
        hypotheses=_HYPOTHESES,
        how=f"The least-squares solution; {_SIZES}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _full(draws, degrees=D + 1),
        mutant_statement="½σ²kd/N",
        mutant=lambda draws: _full(draws, degrees=0),
        trials=1500,
        smoke_trials=400,
        derivation="sensing 1.5",
        figure="fig_noise.png",
        uses=("sensing/equivalence",),
    ),
    Claim(
        id="sensing/noise-floor",
        title="The noise floor at the true rank",
        reference="derivations, sensing 1.5",
        statement=(
            "Given X the best fit of rank r = r* has the mean risk "
            "(σ²/2N)[r tr Σ̂⁻¹ + (k − r) tr((UᵀΣ̂U)⁻¹)], to first order in σ."
        ),
        hypotheses=("linear model", "N >= d", _SMALL),
        how=f"C⁻¹ times the best rank-r* part of Ỹ; {_SIZES}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _given(draws, columns=K - TRUE_RANK),
        mutant_statement="k in place of k − r",
        mutant=lambda draws: _given(draws, columns=K),
        trials=3500,
        smoke_trials=2000,
        derivation="sensing 1.5",
        figure="fig_noise.png",
        uses=("sensing/equivalence",),
    ),
    Claim(
        id="sensing/noise-floor/mean",
        title="The noise floor in the mean over inputs",
        reference="derivations, sensing 1.5",
        statement="½σ²[rd/(N − d − 1) + (k − r)r/(N − r − 1)], to first order in σ.",
        hypotheses=(*_HYPOTHESES, _SMALL),
        how=f"As for the floor given X; {_SIZES}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _mean(draws, wrong=False),
        mutant_statement="σ²r(d + k − r)/2N, the in-sample error",
        mutant=lambda draws: _mean(draws, wrong=True),
        trials=3500,
        smoke_trials=1200,
        derivation="sensing 1.5",
        uses=("sensing/noise-floor",),
    ),
    Claim(
        id="sensing/noise-floor/surplus",
        title="Ranks beyond the true one fit noise",
        reference="derivations, sensing 1.5",
        statement=(
            "r > r* adds ½σ²(N − 1)/((N − d − 1)(N − r* − 1))·E Σ_{i≤r−r*} s_i² in the mean, s_i "
            "the singular values of a (d − r*)×(k − r*) Gaussian matrix, to first order in σ."
        ),
        hypotheses=(*_HYPOTHESES, _SMALL),
        how=f"C⁻¹ times the best rank-{RANK} part of Ỹ; {_SIZES}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _surplus(draws, edge=False),
        mutant_statement="the bulk edge (√(d − r*) + √(k − r*))² for every s_i²",
        mutant=lambda draws: _surplus(draws, edge=True),
        trials=3500,
        smoke_trials=1200,
        derivation="sensing 1.5",
        figure="fig_noise.png",
        uses=("sensing/noise-floor",),
    ),
    Claim(
        id="sensing/noise-floor/surplus/given",
        title="What ranks beyond the true one cost, given the inputs",
        reference="derivations, sensing 1.5",
        statement=(
            "Given X, r > r* adds (σ²/2N)·[tr Σ̂⁻¹ − tr((UᵀΣ̂U)⁻¹)]/(d − r*)·E Σ_{i≤r−r*} s_i², s_i "
            "as above, to first order in σ."
        ),
        hypotheses=("linear model", "N >= d", _SMALL),
        how=(
            f"C⁻¹ times the best part of Ỹ of rank r* + {MORE}, less that of rank r*; "
            f"d = {FEW['d']}, k = {FEW['k']}, r* = {FEW['true_rank']}, N = {FEW['samples']}, "
            f"σ = {FEW['noise_std']:g}; within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _surplus_given(draws, everywhere=False),
        mutant_statement="tr Σ̂⁻¹/d in place of [tr Σ̂⁻¹ − tr((UᵀΣ̂U)⁻¹)]/(d − r*)",
        mutant=lambda draws: _surplus_given(draws, everywhere=True),
        trials=6000,
        smoke_trials=1500,
        derivation="sensing 1.5",
        uses=("sensing/noise-floor",),
    ),
)
