"""1.2: noisy instances drawn without X have the law of those drawn with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, TRUE_RANK, RANK, SAMPLES, NOISE, STEPS = 12, 8, 2, 3, 30, 0.3, 20


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
)
