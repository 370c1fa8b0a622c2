"""1.7: a small start, stopped in time, reaches the floor of the true rank at any rank."""

from __future__ import annotations

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import ratios
from loraone_theory.dynamics.loop import simulate
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
)
