"""1.1 and 1.5: the least loss under noise, its in-sample error, and the way of full fine-tuning."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS, best, half_square, ratios
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.covariance import Tridiagonal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

D, K, TRUE_RANK, SAMPLES = 16, 12, 2, 160
LITTLE, MUCH = 0.02, 0.5
RANKS = (1, 2, 4)
RATE, STEPS, ALLOWANCE = 0.1, 12, 0.03


def _drawn(seeds: tuple[int, ...], noise: float) -> tuple[LinearProblem, Tensor]:
    """Noisy instances, and C of them in full."""
    problem = sample_linear_matrix_free(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=noise, seeds=seeds
    )
    assert isinstance(problem.covariance, Tridiagonal)
    C = torch.diag_embed(problem.covariance.c) + torch.diag_embed(problem.covariance.f, 1)
    return problem, C


def _least(draws: Draws, *, kept: int) -> Evidence:
    """The loss at C⁻¹ times the best part of Ỹ, and what is predicted, over the formula."""
    problem, C = _drawn(draws.seeds(), MUCH)
    assert problem.constant is not None
    values = torch.linalg.svdvals(problem.answer)
    found, promised = [], []
    for rank in RANKS:
        law = problem.constant + 0.5 * (values[:, rank + kept :] ** 2).sum(-1)
        U, S, Vh = torch.linalg.svd(problem.answer, full_matrices=False)
        A = torch.linalg.solve(C, U[..., :rank] * S[:, None, :rank])
        reached = problem.loss(Factors(A, Vh[:, :rank]))
        found += [reached / law, predict.pair_floor(problem, rank=rank) / law]
        promised += [torch.ones_like(law)] * 2
    # Sums of d·k squares of a matrix of size one; C of condition number below 1e2.
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=1e2 * D * K * EPS
    )


@functools.lru_cache(maxsize=1)
def _fitted(seeds: tuple[int, ...]) -> Tensor:
    """½⟨E, Σ̂E⟩ of the best fit of rank r*."""
    problem, C = _drawn(seeds, LITTLE)
    return half_square(best(problem.answer, TRUE_RANK) - C @ problem.shift.dense())


def _in_sample(draws: Draws, *, less: int) -> Evidence:
    """It over σ²r(d + k − less)/2N."""
    error = _fitted(draws.seeds())
    return ratios(error, LITTLE**2 * TRUE_RANK * (D + K - less) / (2 * SAMPLES), ALLOWANCE)


def _path(draws: Draws, *, squared: bool) -> Evidence:
    """The risk of full fine-tuning after some steps from 0."""
    problem, C = _drawn(draws.seeds(), MUCH)
    run = simulate(
        problem, "full", rank=TRUE_RANK, learning_rate=RATE, steps=STEPS, record=("risk",),
        every=STEPS, reduce="never",
    )  # fmt: skip
    lam, Q = torch.linalg.eigh(C.mT @ C)
    left = (1 - RATE * lam) ** STEPS
    bias = (left**2 * (Q.mT @ problem.shift.dense()).square().sum(-1)).sum(-1)
    taken = (1 - left) ** 2 if squared else 1 - left**2
    law = 0.5 * (bias + MUCH**2 * K / SAMPLES * (taken / lam).sum(-1))
    return ratios(run["risk"][-1], law, ALLOWANCE)


_SIZES = f"d = {D}, k = {K}, r* = {TRUE_RANK}, N = {SAMPLES}"

CLAIMS = (
    Claim(
        id="sensing/equivalence/floor",
        title="The least loss of noisy labels",
        reference="derivations, sensing 1.1",
        statement="The least loss of rank r is c + ½Σ_{i>r} σ_i²(Ỹ), at C⁻¹ times Ỹ's best part.",
        hypotheses=("linear model", "any label noise Z", "N >= d"),
        how=f"The loss there and the predicted floor; r ∈ {RANKS}, {_SIZES}, σ = {MUCH}.",
        kind="identity",
        measure=lambda draws: _least(draws, kept=0),
        mutant_statement="i > r + 1 in place of i > r",
        mutant=lambda draws: _least(draws, kept=1),
        trials=100,
        smoke_trials=6,
        derivation="sensing 1.1",
        uses=("sensing/equivalence", "lora-one/linear/floors"),
    ),
    Claim(
        id="sensing/noise-floor/in-sample",
        title="The in-sample error at the true rank",
        reference="derivations, sensing 1.5",
        statement="½⟨E, Σ̂E⟩ = σ²r(d + k − r)/2N in the mean at r = r*, to first order in σ.",
        hypotheses=("linear model", "N >= d", "σ(√d + √k)/√N small against λ*_{r*}"),
        how=f"CE of the best fit; {_SIZES}, σ = {LITTLE}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _in_sample(draws, less=TRUE_RANK),
        mutant_statement="d + k in place of d + k − r",
        mutant=lambda draws: _in_sample(draws, less=0),
        trials=2000,
        smoke_trials=1000,
        derivation="sensing 1.5",
        uses=("sensing/equivalence",),
    ),
    Claim(
        id="sensing/noise-floor/path",
        title="Full fine-tuning on its way",
        reference="derivations, sensing 1.5",
        statement=(
            "From 0, given X, full fine-tuning has the mean risk "
            "½Σ_i[(1 − ηλ_i)^{2t}‖q_iᵀΔ‖² + (σ²k/N)(1 − (1 − ηλ_i)ᵗ)²/λ_i] at step t."
        ),
        hypotheses=("linear model", "N >= d", "Z i.i.d. N(0, σ²)"),
        how=f"Risks at t = {STEPS}, η = {RATE}; {_SIZES}, σ = {MUCH}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _path(draws, squared=True),
        mutant_statement="1 − (1 − ηλ_i)^{2t} in place of (1 − (1 − ηλ_i)ᵗ)²",
        mutant=lambda draws: _path(draws, squared=False),
        trials=1500,
        smoke_trials=400,
        derivation="sensing 1.5",
        uses=("sensing/equivalence",),
    ),
)
