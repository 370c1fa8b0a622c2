"""T3.1: with LoRA-init, the row space of B_t never leaves that of the one-step gradient."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK, STEPS = 24, 18, 3, 6, 150


def _measure(draws: Draws, *, leak: float) -> Evidence:
    """Largest alignment over t = 1 … T on unreduced runs; `leak` starts B off at that size."""
    seeds = draws.seeds()
    problem = sample_linear(d=D, k=K, true_rank=TRUE_RANK, samples=6 * D, seeds=seeds)
    run = simulate_from(problem, seeds, leak)
    sines = run["right_alignment"][1:].amax(0).numpy()
    # Each step rounds B by eps‖B‖; a sine is that over the smallest of its r* singular values,
    # which is smallest at t = 1: B₁ = ηA₀ᵀG.
    first = torch.linalg.svdvals(run.initial.A.mT @ problem.one_step_gradient().dense())
    condition = (first[:, 0] / first[:, TRUE_RANK - 1]).numpy()
    tolerance = np.finfo(np.float64).eps * K * STEPS * condition
    return Evidence(
        lhs=sines, rhs=0.0, tolerance=tolerance, numbers={"largest sine": float(sines.max())}
    )


def simulate_from(problem: LinearProblem, seeds: tuple[int, ...], leak: float) -> Trajectory:
    """An unreduced run from LoRA-init, with B₀ Gaussian of size `leak`."""
    A, B = methods.lora(init_std=0.1).init(problem, RANK, seeds).trainable
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(B.shape, generator=g, dtype=torch.float64)
    return simulate(
        problem,
        "lora",
        rank=RANK,
        learning_rate=0.2,
        steps=STEPS,
        seeds=seeds,
        initial=Factors(A, leak * noise),
        record=("right_alignment",),
        reduce="never",
    )


CLAIMS = (
    Claim(
        id="lora-one/theorem-3.1",
        aliases=("T3.1",),
        title="Right alignment is exact from the first step",
        reference="Theorem 3.1",
        statement="LoRA-init, GD: ‖V_{r*,⊥}(G)ᵀ V_{r*}(B_t)‖_op = 0 for every t ≥ 1.",
        hypotheses=("linear model", "LoRA-init, B₀ = 0", "gradient descent"),
        how=(
            f"Unreduced runs of {STEPS} steps at d = {D}, k = {K}, r* = {TRUE_RANK}, r = {RANK}; "
            "the largest sine over all steps against the rounding of B accumulated over them."
        ),
        kind="identity",
        measure=lambda draws: _measure(draws, leak=0.0),
        mutant_statement="the same with B₀ of size 1e-6 instead of 0",
        mutant=lambda draws: _measure(draws, leak=1e-6),
        trials=200,
        smoke_trials=10,
        derivation="3.2",
        uses=("lora-one/linear/reduction",),
    ),
)
