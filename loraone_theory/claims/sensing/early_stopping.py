"""1.7: a small start, stopped in time, reaches the floor of the true rank at any rank."""

from __future__ import annotations

import math

import torch

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import gaussian, haar
from loraone_theory.claims.sensing.base import ratios
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

D, TRUE_RANK, RANK, SAMPLES, NOISE, START = 40, 2, 8, 400, 0.3, 1e-4
# First order in σ (3 % at σ = 0.3), and a minimum over time lies a little below the floor.
ALLOWANCE = 0.08


def _stopped(draws: Draws, *, noise: float) -> Evidence:
    problem = sample_linear_matrix_free(
        d=D, k=D, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=NOISE, seeds=draws.seeds()
    )
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=0.1, steps=300, init_std=START,
        record=("risk",), every=5,
    )  # fmt: skip
    floor = predict.mean_noise_floor(
        samples=SAMPLES, d=D, k=D, rank=TRUE_RANK, noise_std=noise * NOISE
    )
    return ratios(run["risk"].amin(0), floor, ALLOWANCE)


# Modes by their times: white inputs, so that they do not meet; starts apart by so much.
WIDE, HIGH, ROWS, SIZES, LOUD = 10, 8, 40, (1.0, 0.6), 0.5
STARTS, ETA, LONG, MODES = (1e-5, 1e-13), 0.2, 1200, 3
# The next mode is below this share of one that is learned: it moves that one's time by a share over
# ln(1 + ησ), less than half a step.
APART = 0.02


def _times(draws: Draws, *, exact: bool) -> Evidence:
    """How much later half of σ_i(G) is reached from the smaller start, over what is promised."""
    seeds = draws.seeds()
    X = ROWS**0.5 * haar(ROWS, WIDE, seeds, "X")
    U, V = (haar(n, len(SIZES), seeds, name) for n, name in ((WIDE, "U"), (HIGH, "V")))
    shift = Factors(U * U.new_tensor(SIZES), V.mT)
    noise = LOUD * gaussian(ROWS, HIGH, seeds, "noise")
    problem = LinearProblem.from_data(X, labels=X @ shift.dense() + noise, shift=shift)
    left, S, right = torch.linalg.svd(problem.one_step_gradient().dense(), full_matrices=False)
    run = simulate(
        problem, "lora", rank=MODES + 1, learning_rate=ETA, steps=LONG, init_std=list(STARTS),
        seeds=seeds, record=(), keep_factors=1, reduce="never",
    )  # fmt: skip
    assert run.factors is not None  # they were asked for
    A, B = run.factors
    learned = ((left.mT @ A) * (B @ right.mT).mT).sum(-1)[..., :MODES]
    first = (learned >= S[:, :MODES] / 2).double().argmax(0)
    later = (first[1] - first[0]).double()
    growth = ETA * S[:, :MODES]
    promised = math.log(STARTS[0] / STARTS[1]) / (growth.log1p() if exact else growth)
    rates = (ETA * S[:, : MODES + 1]).log1p()
    apart = STARTS[0] ** (1 - rates[:, 1:] / rates[:, :-1]) <= APART
    inside = (learned[-1] >= S[:, :MODES] / 2).all(0) & apart
    # Both times are rounded up to a step, and half a step is the next mode's.
    return Evidence(
        later.flatten().numpy(), promised.flatten().numpy(), inside.flatten().numpy(), 1.5
    )


CLAIMS = (
    Claim(
        id="sensing/early-stopping",
        title="Early stopping from a small start",
        reference="derivations, sensing 1.7",
        statement=(
            "The least risk on the way from a small LoRA-init of rank r > r* is the noise floor of "
            "rank r*."
        ),
        hypotheses=("linear model", "Gaussian inputs", "α small", "σ small against λ*"),
        how=(
            f"d = k = {D}, N = {SAMPLES}, r* = {TRUE_RANK}, r = {RANK}, σ = {NOISE}, "
            f"α = {START:g}; within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _stopped(draws, noise=1.0),
        mutant_statement="the floor of a noise 10 % larger",
        mutant=lambda draws: _stopped(draws, noise=1.1),
        trials=300,
        smoke_trials=64,
        derivation="sensing 1.7",
        figure="fig_noise.png",
        uses=("sensing/noise-floor", "lora-one/theorem-3.2/proof"),
    ),
    Claim(
        id="sensing/early-stopping/times",
        title="When a mode is learned from a small start",
        reference="derivations, sensing 1.7",
        statement="Mode i of G is learned at t_i ≈ ln(1/α)/ln(1 + ησ_i(G)).",
        hypotheses=(
            "linear model",
            "Σ̂ = I",
            "α small",
            "r > i",
            "modes apart",
            "learned within the run",
        ),
        how=(
            f"How much later half of σ_i(G) is reached at α = {STARTS[1]:g} than at "
            f"{STARTS[0]:g}, to a step and a half; the first {MODES} modes, where the "
            f"next one is below {APART:.0%} of a mode that has grown; d = {WIDE}, "
            f"k = {HIGH}, N = {ROWS}, λ* = {listed(SIZES)}, σ = {LOUD}, η = {ETA}."
        ),
        kind="identity",
        measure=lambda draws: _times(draws, exact=True),
        mutant_statement="ησ_i(G) in place of ln(1 + ησ_i(G))",
        mutant=lambda draws: _times(draws, exact=False),
        trials=30,
        smoke_trials=6,
        derivation="sensing 1.7",
        uses=("sensing/reduction/white",),
    ),
)
