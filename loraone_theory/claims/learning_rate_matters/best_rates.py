"""The learning rate that is best after a given time goes as 1/λ_max of the start."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.learning_rate_matters.base import KAPPA, RANK, TOP, D, parts
from loraone_theory.claims.population import gaussian
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem

SAMPLES, STEPS, LOW, HIGH, PER_OCTAVE = 16, 100, 2.0**-7, 4.0, 4
FACTOR, SQUARE = 2.0, 2.0


class Best(NamedTuple):
    """Of each draw: η*, which has the least loss after STEPS steps, and λ_max at the start."""

    rate: np.ndarray
    curvature: np.ndarray


@functools.lru_cache(maxsize=1)
def _best(seeds: tuple[int, ...], per_octave: int) -> dict[str, Best]:
    """For each method."""
    shift, W = parts(seeds)
    X = gaussian(SAMPLES * D, D, seeds, "X")
    problem = LinearProblem.from_data(X, shift=shift, pretrained=W)
    grid = np.geomspace(LOW, HIGH, round(math.log2(HIGH / LOW) * per_octave) + 1)
    found = {}
    for name, method in (
        ("LoRA", methods.lora(init_std=D**-0.5)),
        ("PiSSA", methods.pissa()),
        ("LoRA-One", methods.lora_one()),
    ):
        run = simulate(
            problem, method, rank=RANK, learning_rate=grid.tolist(), steps=STEPS, every=STEPS,
            seeds=seeds, record=("loss",), reduce="never",
        )  # fmt: skip
        loss = np.nan_to_num(run["loss"][-1].numpy(), nan=np.inf)
        at_start = simulate(
            problem, method, rank=RANK, learning_rate=LOW, steps=1, seeds=seeds,
            record=("sharpness",), reduce="never",
        )["sharpness"][0].numpy()  # fmt: skip
        found[name] = Best(grid[loss.argmin(0)], at_start)
    return found


def _agree(draws: Draws, *, power: float) -> Evidence:
    """ln of η*λ_max^power, PiSSA over LoRA."""
    found = _best(draws.seeds(), PER_OCTAVE // 2 if draws.smoke else PER_OCTAVE)
    values = {name: np.log(of.rate * of.curvature**power) for name, of in found.items()}
    numbers = {
        f"median η*λ_max, {name}": float(np.median(of.rate * of.curvature))
        for name, of in found.items()
    }
    return Evidence(
        values["PiSSA"] - values["LoRA"], 0.0, tolerance=math.log(FACTOR), numbers=numbers
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="learning-rate-matters/best-rate",
        title="The best learning rate goes as 1/λ_max",
        reference=(
            "arXiv 2602.04998, abstract: differing optimal rates come from the largest Hessian "
            "eigenvalue; the factor of this test is ours"
        ),
        statement=f"η*λ_max of PiSSA and of LoRA agree within a factor {FACTOR:g}, in the mean.",
        hypotheses=("λ_max at the start", "gradient descent, a fixed time"),
        how=(
            f"η* of the least loss after {STEPS} steps on a grid of {PER_OCTAVE} to the octave "
            "from "
            f"{LOW:g} to {HIGH:g}; d = k = {D}, N = {SAMPLES}d, r = r* = {RANK}, κ = {KAPPA:g}, "
            f"σ_i(W) = {TOP:g}/√i; mean of ln(η*λ_max) of PiSSA less that of LoRA, ± ln {FACTOR:g}."
        ),
        kind="value",
        measure=lambda draws: _agree(draws, power=1.0),
        mutant_statement="1/λ_max²",
        mutant=lambda draws: _agree(draws, power=SQUARE),
        trials=16,
        smoke_trials=20,
    ),
)
