"""1.2 and 1.4: noisy instances without X, and noise drawn as a run goes, have the same law."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.lazy import sample_linear_lazy
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, TRUE_RANK, RANK, SAMPLES, NOISE, STEPS = 12, 8, 2, 3, 30, 0.3, 20
WIDE, FEW, SHORT = 20, 2, 4  # outputs, rank and steps of a short run: SHORT < WIDE/2·FEW


def _statistics(problem: LinearProblem, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=RANK, learning_rate=0.2, steps=STEPS, seeds=seeds,
        record=("risk", "loss"), every=STEPS,
    )  # fmt: skip
    values = torch.linalg.svdvals(problem.one_step_gradient().dense())
    return {
        f"risk after {STEPS} steps": run["risk"][-1],
        f"loss after {STEPS} steps": run["loss"][-1],
        "σ_{r*+1}(G)": values[:, TRUE_RANK],
    }


def _laws(draws: Draws, *, noise: float) -> Evidence:
    seeds, others = draws.seeds(), draws.seeds(block=1)
    with_X, free = (
        sample(d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=NOISE, seeds=some)
        for sample, some in ((sample_linear, seeds), (sample_linear_matrix_free, others))
    )
    assert free.noise is not None
    free = replace(free, noise=noise * free.noise)
    return same_law(_statistics(with_X, seeds), _statistics(free, others))


def _ends(problem: Problem, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=FEW, learning_rate=0.2, steps=SHORT, seeds=seeds,
        record=("risk", "loss"), every=SHORT,
    )  # fmt: skip
    values = torch.linalg.svdvals(run.final.dense())
    return {
        f"risk after {SHORT} steps": run["risk"][-1],
        f"loss after {SHORT} steps": run["loss"][-1],
        "σ₁(AB)": values[:, 0],
        "σ₂(AB)": values[:, 1],
    }


def _lazy(draws: Draws, *, noise: float) -> Evidence:
    seeds, others = draws.seeds(), draws.seeds(block=1)
    sizes: dict[str, Any] = {"d": D, "k": WIDE, "true_rank": TRUE_RANK, "samples": SAMPLES}
    whole = sample_linear_matrix_free(noise_std=NOISE, seeds=seeds, **sizes)
    lazy = sample_linear_lazy(noise_std=noise * NOISE, steps=SHORT, rank=FEW, seeds=others, **sizes)
    return same_law(_ends(whole, seeds), _ends(lazy, others))


CLAIMS = (
    Claim(
        id="sensing/noise-law",
        title="Label noise in exact-law sampling",
        reference="derivations, sensing 1.2",
        statement=(
            "PᵀZ/√N has i.i.d. N(0, σ²/N) entries, independent of X and of c ~ σ²χ²_{(N−d)k}/2N."
        ),
        hypotheses=("Gaussian inputs", "Z i.i.d. N(0, σ²)", "a rotation-equivariant rule"),
        how=(
            f"Three statistics with X and without; d = {D}, k = {K}, r = {RANK}, "
            f"r* = {TRUE_RANK}, N = {SAMPLES}, σ = {NOISE}; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _laws(draws, noise=1.0),
        mutant_statement="entries 15 % larger",
        mutant=lambda draws: _laws(draws, noise=1.15),
        trials=2000,
        smoke_trials=300,
        explanation=NO_PROOF,
        derivation="sensing 1.2",
        uses=("sensing/equivalence", "lora-one/linear/exact-law"),
    ),
    Claim(
        id="sensing/noise-law/lazy",
        title="Label noise drawn as a run goes",
        reference="derivations, sensing 1.4",
        statement=(
            "Revealing Z̃ along the rows of B and the columns of CA, 2r directions a step, has the "
            "law of drawing it."
        ),
        hypotheses=("Gaussian inputs", "Z i.i.d. N(0, σ²)", "fewer than k/2r steps"),
        how=(
            f"Four statistics of runs; d = {D}, k = {WIDE}, r = {FEW}, r* = {TRUE_RANK}, "
            f"N = {SAMPLES}, σ = {NOISE}, {SHORT} steps; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _lazy(draws, noise=1.0),
        mutant_statement="a noise 15 % larger",
        mutant=lambda draws: _lazy(draws, noise=1.15),
        trials=2000,
        smoke_trials=300,
        explanation=NO_PROOF,
        derivation="sensing 1.4",
        uses=("sensing/noise-law",),
    ),
)
