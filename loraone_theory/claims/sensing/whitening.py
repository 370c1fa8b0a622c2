"""2.1: what descent at a covariance is to the problem of white inputs, plain and in the metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import LIKE, gaussian
from loraone_theory.claims.sensing.base import EPS
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods.whitened import whitened_preconditioned
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, RANK, SAMPLES, STEPS = 10, 7, 2, 80, 30
SPIKES = (5.0, 3.0)
# Of the metric's rule, and of plain descent, whose start is small enough for its rate.
RATE, SLOW, START = 0.3, 0.01, 0.3


class Pair(NamedTuple):
    """The problem at Σ, that of white inputs with Δ′ = Σ^{1/2}Δ, and a start of the first."""

    problem: LinearProblem
    white: LinearProblem
    start: Factors
    root: Tensor


def _law() -> Tensor:
    """Σ's diagonal."""
    return torch.cat([LIKE.new_tensor(SPIKES), LIKE.new_ones(D - len(SPIKES))])


def _pair(draws: Draws, size: float) -> Pair:
    """The same z in both, x = Σ^{1/2}z in the first."""
    seeds, root = draws.seeds(), _law().sqrt()[:, None]
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK, "samples": SAMPLES, "seeds": seeds}
    problem, white = sample_linear(covariance=_law(), **sizes), sample_linear(**sizes)
    white = replace(white, shift=Factors(root * problem.shift.A, problem.shift.B))
    start = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    return Pair(problem, white, Factors(size * start.A, size * start.B), root)


def _whitened(draws: Draws, *, spike: float) -> Evidence:
    """Risks of the whitened rule at Σ, against preconditioned descent of the white problem."""
    problem, white, start, root = _pair(draws, 1.0)
    given = _law()
    given[0] *= spike
    options: dict[str, Any] = {
        "rank": RANK, "learning_rate": RATE, "steps": STEPS, "record": ("risk",), "reduce": "never",
    }  # fmt: skip
    method = whitened_preconditioned(torch.diag(given))
    found = simulate(problem, method, initial=start, **options)["risk"]
    moved = Factors(root * start.A, start.B)
    expected = simulate(white, "p-lora", initial=moved, **options)["risk"]
    gap = ((found - expected).abs() / expected[0]).amax(0)
    # Two Gram inverses of relative error eps·cond² at Gaussian factors (cond² below 1e4 here in
    # all but some draws) and the steps; all errors contract after that.
    return Evidence(gap.numpy(), 0.0, tolerance=1e6 * STEPS * EPS)


def _plain(draws: Draws, *, power: float) -> Evidence:
    """Σ^{1/2}A and B of plain descent at Σ, against the white problem's with Σ^`power`∇_A′."""
    problem, white, start, root = _pair(draws, START)
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=SLOW, steps=STEPS, initial=start, record=(),
        reduce="never",
    )  # fmt: skip
    A, B = root * start.A, start.B
    for _ in range(STEPS):
        along = white.gradients(Factors(A, B))
        A, B = A - SLOW * root ** (2 * power) * along.A, B - SLOW * along.B
    norm = torch.linalg.matrix_norm
    gaps = [norm(x - y) / norm(y) for x, y in ((root * run.final.A, A), (run.final.B, B))]
    # Sums over N and d in every step. Errors grow along negative curvature alone, which is at most
    # ‖Σ̂E‖, some 9·2.5 at the start and less later: by (1 + .01·22)^30 < 1e3 in all.
    return Evidence(torch.stack(gaps).amax(0).numpy(), 0.0, tolerance=1e3 * STEPS * SAMPLES * EPS)


_SIGMA = f"Σ = diag({listed(SPIKES)}, then ones), d = {D}, k = {K}, r = {RANK}, N = {SAMPLES}"

CLAIMS = (
    Claim(
        id="sensing/whitening/plain",
        title="Plain descent under a covariance",
        reference="derivations, sensing 2.1",
        statement=(
            "With A′ = Σ^{1/2}A, Δ′ = Σ^{1/2}Δ gradient descent at Σ is A′ ← A′ − ηΣ∇_{A′}, "
            "B ← B − η∇_B of the problem with white inputs: not invariant."
        ),
        hypotheses=("linear model", "Σ positive definite"),
        how=f"A′ and B after {STEPS} steps from Gaussian factors; {_SIGMA}, η = {SLOW}.",
        kind="identity",
        measure=lambda draws: _plain(draws, power=1.0),
        mutant_statement="Σ^{1/2}∇_{A′} in place of Σ∇_{A′}",
        mutant=lambda draws: _plain(draws, power=0.5),
        trials=100,
        smoke_trials=8,
        derivation="sensing 2.1",
        uses=("lora-one/linear/one-step",),
    ),
    Claim(
        id="sensing/whitening",
        title="Preconditioned descent in the metric of Σ",
        reference="derivations, sensing 2.1",
        statement=(
            "A ← A − ηΣ⁻¹∇_A(BBᵀ)⁻¹, B ← B − η(AᵀΣA)⁻¹∇_B is preconditioned GD of the problem with "
            "A′ = Σ^{1/2}A, Δ′ = Σ^{1/2}Δ and white inputs."
        ),
        hypotheses=("linear model", "Σ known and positive definite"),
        how=f"Risks of {STEPS} steps from Gaussian factors; {_SIGMA}, η = {RATE}.",
        kind="identity",
        measure=lambda draws: _whitened(draws, spike=1.0),
        mutant_statement="a Σ whose first entry is 10 % larger",
        mutant=lambda draws: _whitened(draws, spike=1.1),
        trials=100,
        smoke_trials=8,
        derivation="sensing 2.1",
    ),
)
