"""1.1: label noise is a displaced target, in the metric of Σ̂ or itself, plus a constant."""

from __future__ import annotations

from dataclasses import replace

import torch

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import gaussian
from loraone_theory.claims.sensing.base import EPS
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, RANK, SAMPLES, NOISE = 8, 6, 2, 48, 0.5
# Condition number of Σ̂ from which it does not count as invertible.
SINGULAR = 1e6


def _gaps(draws: Draws, *, constant: float) -> Evidence:
    """Loss and gradients of the problem against those written with X and Z."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=RANK, samples=SAMPLES, noise_std=NOISE, keep_inputs=True, seeds=seeds
    )
    X, Z = problem.inputs, problem.row_noise
    assert X is not None
    assert Z is not None
    assert problem.constant is not None
    problem = replace(problem, constant=constant * problem.constant)
    A = per_seed(lambda rng: normal(rng, D, RANK), seeds, "A", problem.like)
    B = per_seed(lambda rng: normal(rng, RANK, K), seeds, "B", problem.like)
    miss = X @ (A @ B - problem.shift.dense()) - Z
    pulled = X.mT @ miss / SAMPLES
    found = problem.gradients(Factors(A, B))
    norm = torch.linalg.matrix_norm
    pairs = ((found.A, pulled @ B.mT), (found.B, A.mT @ pulled))
    gaps = [norm(one - two) / norm(two) for one, two in pairs]
    loss = (miss**2).sum((-2, -1)) / (2 * SAMPLES)
    gaps.append((problem.loss(Factors(A, B)) - loss).abs() / loss)
    # Products of length N and d, and a factor of Σ̂ of condition number at most 1e2 at N = 6d.
    return Evidence(torch.stack(gaps).amax(0).numpy(), 0.0, tolerance=1e2 * SAMPLES * EPS)


def _target(draws: Draws, *, inverse: bool) -> Evidence:
    """Loss and gradients against those of the noiseless problem with target Δ + Σ̂⁻¹H."""
    seeds = draws.seeds()
    noisy = sample_linear(
        d=D, k=K, true_rank=RANK, samples=SAMPLES, noise_std=NOISE, keep_inputs=True, seeds=seeds
    )
    X, Z, constant = noisy.inputs, noisy.row_noise, noisy.constant
    assert X is not None
    assert Z is not None
    assert constant is not None
    Sigma, H = X.mT @ X / SAMPLES, X.mT @ Z / SAMPLES
    moved = torch.linalg.solve(Sigma, H) if inverse else H
    target = noisy.shift.dense() + moved
    plain = LinearProblem(Dense(Sigma), Factors(target, torch.eye(K).to(target)))
    at = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    norm, found, expected = torch.linalg.matrix_norm, noisy.gradients(at), plain.gradients(at)
    gaps = [norm(one - two) / norm(two) for one, two in zip(found, expected, strict=True)]
    loss = plain.loss(at) + constant
    gaps.append((noisy.loss(at) - loss).abs() / loss)
    condition = torch.linalg.cond(Sigma)
    # Products of length N and d on both sides, and one solution with Σ̂.
    tolerance = 10 * SAMPLES * EPS * condition
    inside = condition < SINGULAR
    return Evidence(
        torch.stack(gaps).amax(0).numpy(), 0.0, inside=inside.numpy(), tolerance=tolerance.numpy()
    )


CLAIMS = (
    Claim(
        id="sensing/equivalence",
        title="Label noise as a displaced target",
        reference="derivations, sensing 1.1",
        statement=(
            "L = ½‖C·AB − Ỹ‖² + c with Ỹ = CΔ + PᵀZ/√N and c = ‖(I − PPᵀ)Z‖²/2N; the gradients "
            "are those of the first term."
        ),
        hypotheses=("linear model", "any label noise Z"),
        how=(
            f"Loss and gradients at Gaussian A, B against X and Z themselves; d = {D}, k = {K}, "
            f"r = {RANK}, N = {SAMPLES}, σ = {NOISE}."
        ),
        kind="identity",
        measure=lambda draws: _gaps(draws, constant=1.0),
        mutant_statement="c = ‖(I − PPᵀ)Z‖²/2(N − d)",
        mutant=lambda draws: _gaps(draws, constant=SAMPLES / (SAMPLES - D)),
        trials=500,
        smoke_trials=20,
        derivation="sensing 1.1",
    ),
    Claim(
        id="sensing/equivalence/target",
        title="Label noise as another target",
        reference="derivations, sensing 1.1",
        statement=(
            "For an invertible Σ̂ the problem is the noiseless one with target Δ̂ = Δ + Σ̂⁻¹H, "
            "H = XᵀZ/N, plus c."
        ),
        hypotheses=("linear model", "any label noise Z", "Σ̂ invertible"),
        how=(
            f"Loss and gradients at Gaussian A, B of both; d = {D}, k = {K}, r = {RANK}, "
            f"N = {SAMPLES}, σ = {NOISE}; Σ̂ of a condition number below {SINGULAR:g}."
        ),
        kind="identity",
        measure=lambda draws: _target(draws, inverse=True),
        mutant_statement="Δ̂ = Δ + H",
        mutant=lambda draws: _target(draws, inverse=False),
        trials=500,
        smoke_trials=20,
        derivation="sensing 1.1",
        uses=("sensing/equivalence",),
    ),
)
