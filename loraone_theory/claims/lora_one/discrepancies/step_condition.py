"""4.5: η ∈ (c, 1) without a condition on Σ̂."""

from __future__ import annotations

import numpy as np

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, TRUE_RANK, KAPPA, STEPS, ETA = 40, 4, 3.0, 400, 0.9
# N/d, that of the mutant, and what counts as converged.
RATIO, FEWER, CONVERGED = 16, 4, 1e-6


def _problem(draws: Draws, ratio: int) -> LinearProblem:
    return sample_linear(
        d=D,
        k=D,
        true_rank=TRUE_RANK,
        samples=ratio * D,
        seeds=draws.seeds(),
        condition_number=KAPPA,
    )


def _end(problem: LinearProblem, eta: float) -> np.ndarray:
    """‖E_T‖_F/‖E_0‖_F of preconditioned GD from Spectral-init; NaN where it diverged."""
    run = simulate(
        problem, "lora-one-preconditioned", rank=TRUE_RANK, learning_rate=eta, steps=STEPS,
        every=STEPS, record=("error",),
    )  # fmt: skip
    return (run["error"][-1] / run["error"][0]).numpy()


def _promised(draws: Draws, ratio: int) -> Evidence:
    problem = _problem(draws, ratio)
    limit = predict.largest_stable_step(problem, "preconditioned").numpy()
    found = _end(problem, ETA)
    numbers = {
        "mean of ‖Σ̂ − I‖_op": float(problem.covariance_deviation().mean()),
        "mean of the largest stable η": float(limit.mean()),
        "share that converges": float((found <= CONVERGED).mean()),
        "share with η below the limit": float((limit > ETA).mean()),
    }
    return Evidence(found, CONVERGED, numbers=numbers)


def _limited(draws: Draws, share: float) -> Evidence:
    """Each instance at `share` of its own stability limit."""
    found, limits = [], []
    for seed in draws.seeds():
        problem = _problem(Draws(1, seed), RATIO)
        limits.append(float(predict.largest_stable_step(problem, "preconditioned")))
        found.append(_end(problem, share * limits[-1]))
    return Evidence(
        np.concatenate(found), CONVERGED, numbers={"mean limit": float(np.mean(limits))}
    )


CLAIMS = (
    Claim(
        id="lora-one/discrepancies/step-condition",
        aliases=("4.5",),
        title="Preconditioned GD converges for every η below 1",
        reference="Theorem 4.2 and Appendix C.3, the range of η, at the sample size of Eq. 8's use",
        statement=f"From Spectral-init preconditioned GD converges for η ∈ (c, 1): here η = {ETA}.",
        hypotheses=("linear model", "r = r*", f"N = {RATIO}d"),
        how=(
            f"d = k = {D}, N = {RATIO}d, κ = {KAPPA:g}, {STEPS} steps to "
            f"‖E_T‖_F ≤ {CONVERGED:g} ‖E₀‖_F."
        ),
        kind="bound",
        measure=lambda draws: _promised(draws, RATIO),
        mutant_statement=f"the same at N = {FEWER}d",
        mutant=lambda draws: _promised(draws, FEWER),
        trials=60,
        smoke_trials=6,
        expected=Finding.VIOLATED,
        explanation=(
            "Stability needs η < 2/λ_max((I + P_A)Σ̂): 1 for Σ̂ = I, about 0.87 at N = 16d, where "
            "‖Σ̂ − I‖_op is near 1/2 and Eq. 8 fails too. The range (c, 1) presupposes small ε."
        ),
        derivation="3.7",
        uses=("lora-one/linear/local-rates",),
    ),
    Claim(
        id="lora-one/discrepancies/step-condition/stable",
        aliases=("4.5/stable",),
        title="It converges below 2/λ_max((I + P_A)Σ̂)",
        reference="Appendix C.3; derivations 3.7",
        statement="From Spectral-init preconditioned GD converges for η < 2/λ_max((I + P_A)Σ̂).",
        hypotheses=("linear model", "r = r*", "η at 90 % of the limit"),
        how=(
            f"d = k = {D}, N = {RATIO}d, κ = {KAPPA:g}, {STEPS} steps, each instance at its own "
            "limit."
        ),
        kind="bound",
        measure=lambda draws: _limited(draws, 0.9),
        mutant_statement="η at 110 % of the limit",
        mutant=lambda draws: _limited(draws, 1.1),
        trials=20,
        smoke_trials=3,
        derivation="3.7",
        uses=("lora-one/linear/local-rates",),
    ),
)
