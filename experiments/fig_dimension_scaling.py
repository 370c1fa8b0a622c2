"""Alignment time and best alignment of LoRA against the width d, up to a million."""

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


# Expect: the time to reach an alignment of θ does not depend on α while α√d is small, and is affine
# in ln(√d/θ)/ln(1 + ηλ_{r*}(G)) (the theory leaves the constant open), with a slope a little above
# 1: at small d the λ_i(G) differ and one direction alone is behind; at large d they coincide. The
# best alignment gets worse with d and better with smaller α.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Over-ranked LoRA by gradient descent on instances drawn exactly in law, without X or Σ̂."""

    trials: int = 32
    """Number of trials; trial i has seed i."""
    smallest: int = 100
    """The least width d = k."""
    largest: int = 10_000
    """The greatest width; 100000 takes about five minutes on two cores; work grows like d."""
    per_decade: int = 2
    """Widths per factor of ten."""
    samples_per_width: int = 16
    """N/d."""
    rank: int = 8
    """r, the rank of the factors."""
    true_rank: int = 4
    """r*, the rank of the shift; its singular values are all 1."""
    learning_rate: float = 1 / 16
    """η."""
    steps: int = 256
    """How many steps."""
    every: int = 4
    """Measure the alignment once in so many steps; the crossing of θ is interpolated."""
    init_stds: tuple[float, ...] = (1e-3, 1e-4, 1e-5, 1e-6)
    """α, the standard deviation of A0's entries."""
    theta: float = 0.25
    """θ, the alignment to reach."""
    chunk: int = 2_000_000
    """Entries of A of all runs that are simulated at a time."""


# The fast directions of a factor outgrow the slow ones by less than 1e2 before they settle.
TOLERANCE = agreement.tolerance(size=10_000, growth=1e2)

SMOKE = Config(trials=4, smallest=30, largest=300, init_stds=(1e-3, 1e-5))


def widths(config: Config) -> np.ndarray:
    """Widths evenly spaced in their logarithm."""
    decades = np.log10(config.largest / config.smallest)
    count = 1 + max(1, round(decades * config.per_decade))
    return np.geomspace(config.smallest, config.largest, count).round().astype(int)


def run(config: Config, progress: Progress) -> Data:
    """Alignment times, best alignments and their steps (width, α, seed), and λ_{r*}(G)."""
    dims = widths(config)
    shape = (len(dims), len(config.init_stds), config.trials)
    time, best, best_step = (np.full(shape, np.nan) for _ in range(3))
    singular = np.full((len(dims), config.trials), np.nan)
    predicted = np.full((len(dims), config.trials), np.nan)
    work = dims / dims.sum()
    for i, d in enumerate(dims.tolist()):
        per_seed = d * config.rank * len(config.init_stds)
        size = min(config.trials, max(1, config.chunk // per_seed))
        for first in range(0, config.trials, size):
            seeds = range(first, min(first + size, config.trials))
            start = work[:i].sum() + work[i] * first / config.trials
            share = work[i] * len(seeds) / config.trials
            chosen = (i, slice(None), slice(seeds.start, seeds.stop))
            steps, alignment, bottom = _curves(
                config,
                d,
                seeds,
                lambda x, start=start, share=share: progress(float(start + share * x)),
            )
            time[chosen] = crossing(steps, alignment, config.theta)
            best[chosen] = np.nanmin(alignment, axis=0)
            best_step[chosen] = steps[np.nanargmin(alignment, axis=0)]
            singular[i, seeds.start : seeds.stop] = bottom
        answer = predict.alignment_time(
            d, config.theta, config.learning_rate, torch.from_numpy(singular[i])
        )
        predicted[i] = answer.numpy()
    return {
        "widths": dims,
        "time": time,
        "best_alignment": best,
        "best_step": best_step,
        "singular_value": singular,
        "predicted_time": predicted,
    }


def _curves(
    config: Config, d: int, seeds: range, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    problem = lt.sample_linear_matrix_free(
        d=d,
        k=d,
        true_rank=config.true_rank,
        samples=config.samples_per_width * d,
        seeds=seeds,
        **config.where,
    )
    run = lt.simulate(
        problem,
        "lora",
        rank=config.rank,
        learning_rate=config.learning_rate,
        steps=config.steps,
        seeds=seeds,
        init_std=list(config.init_stds),
        record=("left_alignment",),
        every=config.every,
        progress=part(progress, 0, 1, config.steps),
    )
    bottom = lt.linalg.truncated_svd(problem.one_step_gradient(), config.true_rank).S[..., -1]
    return run.steps, run["left_alignment"].cpu().numpy(), bottom.cpu().numpy()


def crossing(steps: np.ndarray, alignment: np.ndarray, theta: float) -> np.ndarray:
    """First time at which the alignment is at most θ, log-linear between records; NaN if never.

    Args:
        steps: (T,).
        alignment: (T, ...).
        theta: θ.
    """
    below = alignment <= theta
    reached = below.any(0)
    after = np.maximum(below.argmax(0), 1)[None]
    low, high = (np.take_along_axis(alignment, after - i, 0)[0] for i in (0, 1))
    high, low = np.where(reached, high, np.e), np.where(reached, low, 1.0)
    share = np.log(high / theta) / np.log(high / low)
    start, stop = (steps[after[0] - i] for i in (1, 0))
    return np.where(reached, start + share * (stop - start), np.nan)


def slope(x: np.ndarray, y: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Least-squares slope of y on x and its 95 % bootstrap interval over seeds.

    Args:
        x: (widths, seeds).
        y: (widths, seeds), NaN left out.
        draws: bootstrap samples, from a fixed seed.
    """

    def fit(columns: np.ndarray) -> float:
        a, b = x[:, columns].ravel(), y[:, columns].ravel()
        whole = np.isfinite(b)
        a, b = a[whole] - a[whole].mean(), b[whole]
        return float(a @ b / (a @ a))

    seeds = x.shape[1]
    rng = np.random.default_rng(0)
    samples = [fit(rng.integers(seeds, size=seeds)) for _ in range(draws)]
    low, high = np.quantile(samples, [0.025, 0.975])
    return fit(np.arange(seeds)), float(low), float(high)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Time against d with the prediction; best alignment against d."""
    figure, axes = plotting.figure(1, 2, height=3.7)
    left, right = axes[0]
    dims, predicted = data["widths"], data["predicted_time"]
    logs = np.log(dims)[:, None].repeat(predicted.shape[1], 1)
    count = len(config.init_stds)
    for i, colour in enumerate(plotting.sequence(count)):
        line = {"color": colour, "marker": plotting.MARKERS[i]}
        alpha = rf"$\alpha={plotting.power_of_ten(config.init_stds[i])}$"
        time, best = data["time"][:, i], data["best_alignment"][:, i]
        whole = np.isfinite(time).all(-1)
        label = f"{alpha}: not reached"
        if whole.sum() >= 2:
            label = f"{alpha}: {_interval(predicted[whole], time[whole])}"
        aside = 1.07 ** (i - (count - 1) / 2)  # the curves coincide; side by side all are seen
        plotting.spread(left, dims * aside, time, label=label, **line)
        label = f"{alpha}: {_interval(logs, np.log(best))}"
        plotting.spread(right, dims, best, label=label, **line)
    left.plot(
        dims,
        predicted.mean(-1),
        color=plotting.THEORY,
        linestyle="--",
        label=r"$\ln(\sqrt{d}/\theta)\,/\,\ln(1+\eta\lambda_{r^*}(G))$",
    )
    left.set(
        xscale="log", xlabel="width $d$", ylabel=rf"steps to alignment $\theta={config.theta:g}$"
    )
    right.set(xscale="log", yscale="log", xlabel="width $d$", ylabel="least alignment over $t$")
    plotting.label_panels((left, right), ("alignment time", "best alignment"))
    for ax, title in ((left, "slope against the prediction"), (right, "exponent of $d$")):
        ax.legend(title=title, title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return {"fig_dimension_scaling": figure}


def _interval(x: np.ndarray, y: np.ndarray) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*slope(x, y))
