"""Measured contraction against the step size: the predicted curve, its best step and its edge."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress, part

METHODS = ("lora-one", "lora-one-preconditioned")
TITLES = ("gradient descent", "preconditioned")


# Expect: points on the predicted curves, V-shaped in η, down to the best step and up to the edge
# beyond which no run converges. Fewer samples per input move the edge below η = 1, the best step
# with it, and raise the least rate; at N = ∞ the preconditioned rule has max(|1 − η|, |1 − 2η|).
# A start at random directions of a dense spectrum shows a slightly smaller rate than the slowest
# mode's at small η, where the error is gone before that mode is alone.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """LoRA-One by both rules near the solution, r = r*."""

    trials: int = 8
    """Number of trials; trial i has seed i."""
    d: int = 60
    """Input and output width, d = k."""
    rank: int = 4
    """r = r*."""
    condition_number: float = 2.0
    """κ; the singular values are geometric from 1 to 1/κ."""
    ratios: tuple[float, ...] = (4.0, 16.0, float("inf"))
    """N/d; inf stands for the population problem."""
    rates: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.05, 1.25, 25))
    """η for which runs are made."""
    nudge: float = 1e-4
    """Size of the random tangent perturbation of the solution that runs start from."""
    steps: int = 400
    """How many steps at most."""
    grid: int = 200
    """η at which the prediction is drawn."""


# Down to which errors are followed, relative to the first.
LOW = 1e-8
# That far of the nudge is below the floor; near the stability edge the roundings of some 1e2 steps
# add up, like a random walk.
TOLERANCE = agreement.tolerance(size=60, growth=agreement.floor() / (LOW * Config.nudge) * 1e2**0.5)

SMOKE = Config(trials=2, d=16, rank=2, rates=(0.2, 0.5, 0.8, 1.3), steps=80, grid=30)


def instances(config: Config, ratio: float) -> lt.LinearProblem:
    """The linear problem at one N/d, with inputs and frames of the same seeds."""
    finite = np.isfinite(ratio)
    problem = lt.sample_linear(
        d=config.d,
        k=config.d,
        true_rank=config.rank,
        samples=round(config.d * (ratio if finite else 1)),
        condition_number=config.condition_number,
        seeds=range(config.trials),
        **config.where,
    )
    return problem if finite else lt.LinearProblem.population(shift=problem.shift)


def nudged(problem: lt.LinearProblem, config: Config) -> lt.Factors:
    """The balanced solution, moved by a random tangent direction of the row space of Δ."""
    A, B = predict.pair_solution(problem, rank=config.rank)
    rng = np.random.default_rng(0)
    X, Y = (
        torch.from_numpy(rng.standard_normal(shape)).to(A)
        for shape in (A.shape, (*B.shape[:-2], config.rank, config.rank))
    )
    size = config.nudge / (config.d * config.rank) ** 0.5
    return lt.Factors(A + size * X, B + size * Y @ B)


def run(config: Config, progress: Progress) -> Data:
    """Measured rates (ratio, method, η, seed), predicted ones on a grid, best steps and edges."""
    drawn = np.linspace(min(config.rates) / 2, max(config.rates), config.grid)
    measured, predicted, best, edge = [], [], [], []
    stages = len(config.ratios) * len(METHODS)
    for i, ratio in enumerate(config.ratios):
        problem = instances(config, ratio)
        for j, method in enumerate(METHODS):
            run = lt.simulate(
                problem,
                method,
                rank=config.rank,
                learning_rate=config.rates,
                steps=config.steps,
                seeds=range(config.trials),
                initial=nudged(problem, config),
                record=("error",),
                progress=part(progress, i * len(METHODS) + j, stages, config.steps),
            )
            measured.append(tail_rate(run["error"].cpu().numpy()))
            near = predict.contraction(problem, method, rank=config.rank)
            curve = torch.stack([near.rate(float(eta)) for eta in drawn])
            predicted.append(curve.cpu().numpy())
            best.append(near.best_step.cpu().numpy())
            edge.append(near.largest_stable_step.cpu().numpy())
    shape = (len(config.ratios), len(METHODS))

    def gathered(parts: list[np.ndarray]) -> np.ndarray:
        return np.stack(parts).reshape(*shape, *parts[0].shape)

    return {
        "drawn": drawn,
        "measured": gathered(measured),
        "predicted": gathered(predicted),
        "best": gathered(best),
        "edge": gathered(edge),
    }


def comparable(data: Data) -> Data:
    """Without the rates of runs that do not converge: there rounding grows like the run itself."""
    return data | {"measured": np.where(data["measured"] < 0.99, data["measured"], np.nan)}


def tail_rate(error: np.ndarray) -> np.ndarray:
    """(e_t/e_s)^{1/(t−s)} over the later half of the steps with LOW <= e/e₀ <= 100.

    Runs that grow are measured on the way up, before they leave the neighbourhood; NaN where that
    takes fewer than four steps.

    Args:
        error: (T, ...).
    """
    relative = error / error[0]
    outside = ~((relative >= LOW) & (relative <= 1e2))
    last = np.where(outside.any(0), outside.argmax(0) - 1, len(error) - 1)
    half = last // 2
    ends = (np.take_along_axis(relative, at[None], 0)[0] for at in (last, half))
    rate = (next(ends) / next(ends)) ** (1 / np.maximum(last - half, 1))
    return np.where(last >= 4, rate, np.nan)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """One panel per rule, one colour per N/d."""
    figure, axes = plotting.figure(1, 2, height=3.2, sharey=True)
    colours = plotting.sequence(len(config.ratios))
    eta = np.array(config.rates)
    handles = []
    for i, ratio in enumerate(config.ratios):
        colour = colours[i]
        text = rf"$N/d={ratio:g}$" if np.isfinite(ratio) else r"$N=\infty$"
        handles.append(plotting.key(text, color=colour))
        for j, ax in enumerate(axes[0]):
            line = {"color": colour, "linestyle": "--", "linewidth": 1}
            ax.plot(data["drawn"], data["predicted"][i, j].mean(-1), **line)
            look = {"color": colour, "marker": plotting.MARKERS[i], "linestyle": "none"}
            plotting.spread(ax, eta, data["measured"][i, j], markersize=3, **look)
            edge = data["edge"][i, j].mean()
            ax.axvline(edge, color=colour, linewidth=0.8, linestyle=":")
            best = data["best"][i, j].mean()
            least = np.interp(best, data["drawn"], data["predicted"][i, j].mean(-1))
            ax.plot(best, least, marker="*", markersize=9, color=colour, markeredgecolor="white")
    for ax in axes[0]:
        ax.axhline(1, color=plotting.THEORY, linewidth=0.7)
        ax.set(xlabel=r"step size $\eta$", xlim=(0, min(1.15, 1.02 * eta.max())), ylim=(0.2, 1.25))
    axes[0, 0].set_ylabel(r"contraction of $\Vert E_t\Vert_F$ per step")
    plotting.label_panels(axes[0], TITLES)
    grey = {"color": plotting.THEORY}
    handles += [
        plotting.key("measured", marker="o", linestyle="none", markersize=3, **grey),
        plotting.key("predicted", linestyle="--", linewidth=1, **grey),
        plotting.key("best step", marker="*", linestyle="none", markersize=7, **grey),
        plotting.key("stability edge", linestyle=":", linewidth=0.8, **grey),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_step_size": figure}
