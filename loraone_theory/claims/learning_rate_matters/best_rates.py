"""The learning rate that is best after a given time goes as 1/λ_max of the start."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.learning_rate_matters.base import KAPPA, RANK, TOP, D, parts
from loraone_theory.claims.population import exponent, gaussian
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem

SAMPLES, STEPS, LOW, HIGH, PER_OCTAVE = 16, 100, 2.0**-7, 4.0, 4
FACTOR, SQUARE = 2.0, 2.0
# W is made so many times as large; the exponent's allowance, and a wrong exponent.
LARGER, SLOPE, SLOWER = (4.0, 64.0), 0.1, -0.8
METHODS = {
    "LoRA": methods.lora(init_std=D**-0.5),
    "PiSSA": methods.pissa(),
    "LoRA-One": methods.lora_one(),
}


class Best(NamedTuple):
    """Of each draw: η*, which has the least loss after STEPS steps, and λ_max at the start."""

    rate: np.ndarray
    curvature: np.ndarray


@functools.lru_cache(maxsize=8)
def _best(seeds: tuple[int, ...], per_octave: int, name: str, times: float = 1.0) -> Best:
    """Of one method, W `times` as large."""
    shift, W = parts(seeds)
    X = gaussian(SAMPLES * D, D, seeds, "X")
    problem = LinearProblem.from_data(X, shift=shift, pretrained=times * W)
    grid = np.geomspace(LOW, HIGH, round(math.log2(HIGH / LOW) * per_octave) + 1) / times
    run = simulate(
        problem, METHODS[name], rank=RANK, learning_rate=grid.tolist(), steps=STEPS, every=STEPS,
        seeds=seeds, record=("loss",), reduce="never",
    )  # fmt: skip
    loss = np.nan_to_num(run["loss"][-1].numpy(), nan=np.inf)
    at_start = simulate(
        problem, METHODS[name], rank=RANK, learning_rate=LOW, steps=1, seeds=seeds,
        record=("sharpness",), reduce="never",
    )["sharpness"][0].numpy()  # fmt: skip
    return Best(grid[loss.argmin(0)], at_start)


def _per_octave(draws: Draws) -> int:
    return PER_OCTAVE // 2 if draws.smoke else PER_OCTAVE


def _within(draws: Draws, *, promised: float) -> Evidence:
    """Exponent of η* in λ_max, from PiSSA as W grows."""
    found = [_best(draws.seeds(), _per_octave(draws), "PiSSA", times) for times in LARGER]
    rates, tops = (np.log(np.array(rows)) for rows in zip(*found, strict=True))
    centred = tops - tops.mean(0)
    slopes = (centred * rates).sum(0) / (centred * centred).sum(0)
    medians = {
        f"median η*λ_max, W {times:g} times as large": float(np.median(of.rate * of.curvature))
        for times, of in zip(LARGER, found, strict=True)
    }
    return exponent(slopes, promised, SLOPE, **medians)


def _agree(draws: Draws, *, power: float) -> Evidence:
    """ln of η*λ_max^power, PiSSA over LoRA."""
    names = tuple(METHODS)[:2] if draws.smoke else tuple(METHODS)
    found = {name: _best(draws.seeds(), _per_octave(draws), name) for name in names}
    values = {name: np.log(of.rate * of.curvature**power) for name, of in found.items()}
    numbers = {
        f"median η*λ_max, {name}": float(np.median(of.rate * of.curvature))
        for name, of in found.items()
    }
    return Evidence(
        values["PiSSA"] - values["LoRA"], 0.0, tolerance=math.log(FACTOR), numbers=numbers
    )  # fmt: skip


READ = (
    "arXiv 2602.04998, abstract: differing optimal rates come from the largest Hessian eigenvalue"
)
GRID = f"η* of the least loss after {STEPS} steps on a grid of {PER_OCTAVE} to the octave"
SIZES = f"d = k = {D}, N = {SAMPLES}d, r = r* = {RANK}, κ = {KAPPA:g}"
HYPOTHESES = ("λ_max at the start", "gradient descent, a fixed time")
CLAIMS = (
    Claim(
        id="learning-rate-matters/best-rate",
        title="The best learning rate goes as 1/λ_max",
        reference=f"{READ}; that it is so of one method as W grows is our reading of it",
        statement="As W grows, η* of PiSSA goes as λ_max to the power −1.",
        hypotheses=(*HYPOTHESES, "σ₁(W) ≫ σ₁(Δ)"),
        how=(
            f"{GRID}; σ_i(W) = c/√i, c = {listed(TOP * times for times in LARGER)}, {SIZES}; "
            f"exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _within(draws, promised=-1.0),
        mutant_statement=f"to the power {SLOWER:g}",
        mutant=lambda draws: _within(draws, promised=SLOWER),
        trials=24,
        smoke_trials=48,
        uses=("learning-rate-matters/curvature/pissa",),
    ),
    Claim(
        id="learning-rate-matters/best-rate/methods",
        title="That is most of what sets the best rates of two methods apart",
        reference=f"{READ}; the factor of this test is ours",
        statement=f"η*λ_max of PiSSA and of LoRA agree within a factor {FACTOR:g}, in the mean.",
        hypotheses=HYPOTHESES,
        how=(
            f"{GRID} from {LOW:g} to {HIGH:g}; {SIZES}, σ_i(W) = {TOP:g}/√i; mean of ln(η*λ_max) "
            f"of PiSSA less that of LoRA, ± ln {FACTOR:g}."
        ),
        kind="value",
        measure=lambda draws: _agree(draws, power=1.0),
        mutant_statement="η*λ_max² in place of η*λ_max",
        mutant=lambda draws: _agree(draws, power=SQUARE),
        trials=16,
        smoke_trials=20,
        uses=("learning-rate-matters/curvature/pissa", "learning-rate-matters/curvature/lora"),
    ),
)
