"""3.1 and 3.3: dense sensing, its noise floor, and its law without the operator."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, balanced, ratios, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.base import Problem
from loraone_theory.problems.sensing.lazy import sample_dense_lazy
from loraone_theory.problems.sensing.sampling import sample_sensing

D, TRUE_RANK = 6, 1
DOF = TRUE_RANK * (2 * D - TRUE_RANK)
COUNT, SIGMA = 70, 1e-3
ALLOWANCE = 0.07


def _floor(draws: Draws, *, less: int) -> Evidence:
    problem = sample_sensing(
        ensemble="dense", d=D, k=D, true_rank=TRUE_RANK, measurements=COUNT, noise_std=SIGMA,
        seeds=draws.seeds(),
    )  # fmt: skip
    assert problem.shift is not None
    # At rates of at most 1 − .5(1 − √(11/70))² = .82 nothing of the start at Δ is left.
    run = simulate(
        problem, "lora-one-preconditioned", rank=TRUE_RANK, learning_rate=0.5, steps=40,
        initial=balanced(problem.shift), record=("risk",), every=40,
    )  # fmt: skip
    return ratios(run["risk"][-1], SIGMA**2 / 2 * DOF / (COUNT - less), ALLOWANCE)


K, RANK, MEASURED, STEPS, NOISE = 5, 2, 40, 12, 0.3


def _statistics(problem: Problem, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=RANK, learning_rate=0.2, steps=STEPS, seeds=seeds,
        record=("risk", "loss"), every=STEPS,
    )  # fmt: skip
    return {
        "loss at Spectral-init": run["loss"][0],
        f"risk after {STEPS} steps": run["risk"][-1],
        f"loss after {STEPS} steps": run["loss"][-1],
    }


def _lazy(draws: Draws, *, measured: int) -> Evidence:
    seeds, others = draws.seeds(), draws.seeds(block=1)
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": TRUE_RANK, "noise_std": NOISE}
    whole = sample_sensing(ensemble="dense", measurements=MEASURED, seeds=seeds, **sizes)
    lazy = sample_dense_lazy(measurements=measured, steps=STEPS, seeds=others, **sizes)
    return same_law(_statistics(whole, seeds), _statistics(lazy, others))


CLAIMS = (
    Claim(
        id="sensing/dense-floor",
        title="The noise floor of dense sensing",
        reference="derivations, sensing 3.1",
        statement="The mean risk at the end is ½σ²dof/(m − dof − 1), dof = r(d + k − r).",
        hypotheses=("dense Gaussian measurements", "r = r*", "m > dof + 1", "σ small"),
        how=(
            f"Preconditioned GD from Δ to its end; d = k = {D}, r = {TRUE_RANK}, m = {COUNT}, "
            f"σ = {SIGMA:g}; within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _floor(draws, less=DOF + 1),
        mutant_statement="½σ²dof/m",
        mutant=lambda draws: _floor(draws, less=0),
        trials=4000,
        smoke_trials=1500,
        derivation="sensing 3.1",
        uses=("sensing/local-rates/wishart",),
    ),
    Claim(
        id="sensing/lazy-dense",
        title="Dense sensing with T matrices in place of m",
        reference="derivations, sensing 3.3",
        statement=(
            "Revealing 𝒜 along the residuals of a run, one d×k matrix a step, has the law of "
            "drawing it."
        ),
        hypotheses=("dense Gaussian measurements", "fewer steps than measurements"),
        how=(
            f"Three statistics of runs; d = {D}, k = {K}, m = {MEASURED}, r = {RANK}, "
            f"r* = {TRUE_RANK}, σ = {NOISE}; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _lazy(draws, measured=MEASURED),
        mutant_statement="20 % more measurements",
        mutant=lambda draws: _lazy(draws, measured=MEASURED * 6 // 5),
        trials=2000,
        smoke_trials=500,
        explanation=NO_PROOF,
        derivation="sensing 3.3",
    ),
)
