"""2.1 to 2.5: whitening, other laws of the inputs, fewer samples than inputs, spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS, LAW, NO_PROOF, ratios, same_law
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods.whitened import whitened_preconditioned
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, RANK, SAMPLES, STEPS = 10, 7, 2, 80, 30
SPIKES = (5.0, 3.0)
FREE = 2 * D  # samples of the laws under spikes
PLAIN = "Σ diagonal with " + " and ".join(f"{s:g}" for s in SPIKES) + " first and else one"
# Fewer samples than inputs: of the end itself, and of its mean risk.
WIDE, OUT, ROWS, END = 30, 6, 12, 600
NARROW, HIGH, LEFT, WITHIN = 15, 3, 5, 0.03


def _whitened(draws: Draws, *, spike: float) -> Evidence:
    """Risks of the whitened rule at Σ, against preconditioned descent of the white problem."""
    seeds = draws.seeds()
    Sigma = torch.ones(D, dtype=torch.float64)
    Sigma[: len(SPIKES)] = torch.tensor(SPIKES, dtype=torch.float64)
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK, "samples": SAMPLES, "seeds": seeds}
    problem = sample_linear(covariance=Sigma.numpy(), **sizes)
    root = Sigma.sqrt()[:, None]
    white = sample_linear(**sizes)
    white = replace(white, shift=Factors(root * problem.shift.A, problem.shift.B))
    A = per_seed(lambda rng: normal(rng, D, RANK), seeds, "A", problem.like)
    B = per_seed(lambda rng: normal(rng, RANK, K), seeds, "B", problem.like)
    given = Sigma.clone()
    given[0] *= spike
    options: dict[str, Any] = {
        "rank": RANK,
        "learning_rate": 0.3,
        "steps": STEPS,
        "record": ("risk",),
    }
    found = simulate(
        problem, whitened_preconditioned(torch.diag(given)), initial=Factors(A, B), reduce="never",
        **options,
    )["risk"]  # fmt: skip
    expected = simulate(white, "p-lora", initial=Factors(root * A, B), reduce="never", **options)[
        "risk"
    ]
    gap = ((found - expected).abs() / expected[0]).amax(0)
    # Two Gram inverses of relative error eps·cond² at Gaussian factors (cond² below 1e4 here in
    # all but some draws) and the steps; all errors contract after that.
    return Evidence(gap.numpy(), 0.0, tolerance=1e6 * STEPS * EPS)


# law: E z⁴ of independent entries; the sphere's error is that of E z⁴ = 1.
MOMENTS = {"gaussian": 3, "rademacher": 1, "sphere": 1}
SMALL, FEW, ALLOWANCE = 8, 48, 0.05


def _law(draws: Draws, law: str, *, wrong: bool) -> Evidence:
    """‖(Σ̂ − I)Δ‖² against (d − 2 + E z⁴)/N; the mutant has d/N for every law."""
    problem = sample_linear(d=SMALL, k=1, true_rank=1, samples=FEW, inputs=law, seeds=draws.seeds())
    miss = problem.one_step_gradient().dense() - problem.shift.dense()
    promised = SMALL if wrong else SMALL - 2 + MOMENTS[law]
    return ratios(FEW * (miss**2).sum((-2, -1)), promised, ALLOWANCE)


def _fewer(draws: Draws, *, dropped: int) -> Evidence:
    """AB at the end against P_XΔ, the mutant with the rows of X but the last."""
    problem = sample_linear(
        d=WIDE, k=OUT, true_rank=RANK, samples=ROWS, keep_inputs=True, seeds=draws.seeds()
    )
    run = simulate(
        problem, "lora-one-preconditioned", rank=RANK, learning_rate=0.1, steps=END, record=()
    )
    assert problem.inputs is not None
    rows = torch.linalg.qr(problem.inputs[:, : ROWS - dropped].mT).Q
    expected = rows @ (rows.mT @ problem.shift.dense())
    gap = torch.linalg.matrix_norm(run.final.dense() - expected)
    # Nonzero eigenvalues of Σ̂ lie above (√(30/12) − 1)²/2 = .17 in all but rare draws, so that
    # 600 steps at η = .1 leave (1 − .017)^600 = 4e-5 of them at the worst, and 1e-7 in most.
    return Evidence((gap / 2**0.5).numpy(), 0.0, tolerance=1e-3)


def _fewer_risk(draws: Draws, *, wrong: bool) -> Evidence:
    """Its risk, ½‖(I − P_X)Δ‖², in the mean."""
    problem = sample_linear(
        d=NARROW, k=HIGH, true_rank=1, samples=LEFT, keep_inputs=True, seeds=draws.seeds()
    )
    assert problem.inputs is not None
    run = simulate(
        problem, "lora-one-preconditioned", rank=1, learning_rate=0.1, steps=150, record=("risk",),
        every=150,
    )  # fmt: skip
    share = LEFT - 1 if wrong else LEFT
    return ratios(run["risk"][-1], (1 - share / NARROW) / 2, WITHIN)


def _spiked(draws: Draws, *, factor: float) -> Evidence:
    """The laws of four statistics of the spiked model with X and without."""
    seeds, others = draws.seeds(), draws.seeds(block=1)
    Sigma = np.ones(D)
    Sigma[: len(SPIKES)] = SPIKES
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK, "samples": FREE}
    first = sample_linear(covariance=Sigma, seeds=seeds, **sizes)
    spikes = [factor * SPIKES[0], *SPIKES[1:]]
    second = sample_linear_matrix_free(spikes=spikes, seeds=others, **sizes)
    return same_law(_statistics(first), _statistics(second))


def _statistics(problem: LinearProblem) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=RANK, learning_rate=0.01, steps=20, record=("risk",), every=20
    )
    ends = problem.covariance_spectrum()
    return {
        "risk after 20 steps": run["risk"][-1],
        "sinΘ(U, U(G))": predict.plateau(problem),
        "smallest eigenvalue of Σ̂": ends[:, 0],
        "largest eigenvalue of Σ̂": ends[:, 1],
    }


def _law_claim(law: str) -> Claim:
    text = {"sphere": "d − 1", "rademacher": "d − 1", "gaussian": "d + 1"}[law]
    return Claim(
        id=f"sensing/input-laws/{law}",
        title=f"One-step error of {law} inputs",
        reference="derivations, sensing 2.3",
        statement=(
            "N·E‖(Σ̂ − I)v‖² = E[‖x‖²(v·x)²] − 1, for independent entries d − 2 + E z⁴; here "
            f"{text}."
        ),
        hypotheses=(f"{law} inputs with E xxᵀ = I", "‖v‖ = 1"),
        how=f"d = {SMALL}, N = {FEW}, Haar v; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _law(draws, law, wrong=False),
        mutant_statement="d for every law",
        mutant=lambda draws: _law(draws, law, wrong=True),
        trials=6000,
        smoke_trials=3000,
        derivation="sensing 2.3",
        figure="fig_input_laws.png",
    )


CLAIMS = (
    Claim(
        id="sensing/whitening",
        title="Preconditioned descent in the metric of Σ",
        reference="derivations, sensing 2.1",
        statement=(
            "A ← A − ηΣ⁻¹∇_A(BBᵀ)⁻¹, B ← B − η(AᵀΣA)⁻¹∇_B is preconditioned GD of the problem with "
            "A′ = Σ^{1/2}A, Δ′ = Σ^{1/2}Δ and white inputs."
        ),
        hypotheses=("linear model", "Σ known and positive definite"),
        how=f"Risks of {STEPS} steps from Gaussian factors; {PLAIN}, d = {D}, N = {SAMPLES}.",
        kind="identity",
        measure=lambda draws: _whitened(draws, spike=1.0),
        mutant_statement="a Σ whose first entry is 10 % larger",
        mutant=lambda draws: _whitened(draws, spike=1.1),
        trials=100,
        smoke_trials=8,
        derivation="sensing 2.1",
    ),
    *(_law_claim(law) for law in MOMENTS),
    Claim(
        id="sensing/fewer-samples",
        title="Fewer samples than inputs",
        reference="derivations, sensing 2.4",
        statement="N < d: a run from Spectral-init that interpolates ends at AB = P_XΔ.",
        hypotheses=("linear model", "N < d", "r >= r*", "Spectral-init", "it interpolates"),
        how=(
            f"‖AB − P_XΔ‖/‖Δ‖ after {END} preconditioned steps; d = {WIDE}, N = {ROWS}, "
            f"r = r* = {RANK}."
        ),
        kind="identity",
        measure=lambda draws: _fewer(draws, dropped=0),
        mutant_statement="the projection on all rows of X but one",
        mutant=lambda draws: _fewer(draws, dropped=1),
        trials=50,
        smoke_trials=6,
        derivation="sensing 2.4",
    ),
    Claim(
        id="sensing/fewer-samples/risk",
        title="What fewer samples than inputs leave",
        reference="derivations, sensing 2.4",
        statement="Its risk is ½(1 − N/d)‖Δ‖² in the mean.",
        hypotheses=("isotropic inputs", "N < d", "r >= r*", "Spectral-init", "it interpolates"),
        how=f"The run's risk at d = {NARROW}, N = {LEFT}, Δ of rank one; within {WITHIN:.0%}.",
        kind="value",
        measure=lambda draws: _fewer_risk(draws, wrong=False),
        mutant_statement="½(1 − (N − 1)/d)‖Δ‖²",
        mutant=lambda draws: _fewer_risk(draws, wrong=True),
        trials=4000,
        smoke_trials=1200,
        derivation="sensing 2.4",
        uses=("sensing/fewer-samples",),
    ),
    Claim(
        id="sensing/spiked-law",
        title="Exact-law sampling of a spiked covariance",
        reference="derivations, sensing 2.5",
        statement=(
            "Block bidiagonalisation draws Σ̂ and U of Σ = diag(spikes, 1, …, 1) without X, in "
            "O(dq²)."
        ),
        hypotheses=("Gaussian inputs", "a rotation-equivariant rule"),
        how=f"Four statistics with X and without; {PLAIN}, d = {D}, N = {FREE}; {LAW}.",
        kind="bound",
        measure=lambda draws: _spiked(draws, factor=1.0),
        mutant_statement="a first spike 20 % larger",
        mutant=lambda draws: _spiked(draws, factor=1.2),
        trials=3000,
        smoke_trials=500,
        explanation=NO_PROOF,
        derivation="sensing 2.5",
        uses=("lora-one/linear/rotation",),
    ),
)
