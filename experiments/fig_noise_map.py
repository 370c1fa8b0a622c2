"""Noise map: the risk over its floor against label noise σ and rank, and what stopping saves."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress
from loraone_theory.sweeps.maps import maps

METHODS = ("lora", "lora-one-preconditioned")
# What each map shows: title, method, variable of the sweep.
PANELS = (
    ("LoRA, at the end", 0, "end"),
    ("LoRA, at its best step", 0, "best"),
    ("precond. LoRA-One, at the end", 1, "end"),
)
LOOKS = (
    {"color": plotting.BLUE, "marker": "o"},
    {"color": plotting.GREEN, "marker": "s"},
    {"color": plotting.VERMILLION, "marker": "^"},
)


# Expect: (a) from a small start LoRA ends on the floor of rank r* at every rank (1, dark) until the
# noise is large enough to grow within the run: the dashed line, where (1 + ηs)^T = 2√s/(α√r) for
# the top singular value s of the noise. (b) Its best step is near the floor on both sides. (c) From
# the spectral start the extra rank holds noise from the first step on, so that the risk depends on
# the rank alone. Right of the dash-dotted line, s = λ*, the shift itself is below the noise.
# (d) Where noise is learned, the risk of rank r is that of its top r − r* singular values.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """The linear model with Y = X(W + Δ) + Z, all singular values of Δ equal to 1."""

    trials: int = 8
    """Number of trials; trial i has seed i."""
    d: int = 16
    """Input and output width, d = k."""
    true_rank: int = 2
    """r*."""
    samples: int = 320
    """N."""
    noise: tuple[float, ...] = tuple(float(x) for x in np.geomspace(0.05, 3.0, 7))
    """σ, of one label."""
    ranks: tuple[int, ...] = (2, 3, 4, 6, 8)
    """r."""
    init_std: float = 1e-3
    """α of LoRA."""
    learning_rate: float = 0.2
    """η."""
    steps: int = 400
    """T."""
    shown: float = 0.75
    """(d) is at the σ next to this one."""
    folder: str = ""
    """Where the sweep is kept, so that an interrupted one goes on; nowhere by default."""
    workers: int = 1
    """Processes; more than one need the extra "sweep"."""


# Sums over N = 320; what is learned late has grown from α by 1/α, its perturbations by the
# logarithm of that alone, and singular vectors of the noise turn with gaps of some 1/40.
TOLERANCE = agreement.tolerance(size=320, growth=1e3)

SMOKE = Config(trials=2, d=8, samples=80, noise=(0.1, 1.0), ranks=(2, 4), steps=100)

# Ten thousand runs: minutes on two cores, with a folder that an interrupted run goes on from.
PRESETS = {
    "full": Config(
        trials=40,
        noise=tuple(float(x) for x in np.geomspace(0.05, 3.0, 16)),
        ranks=(2, 3, 4, 5, 6, 7, 8, 10),
        folder="sweeps/noise_map",
    )
}


def sweep_of(config: Config, folder: str | Path) -> lt.Sweep:
    """Risks of every method over r, σ and seed."""
    points = [(method, rank) for method in METHODS for rank in config.ranks]
    return lt.Sweep(
        folder,
        name="noise map",
        fixed={
            "sampler": "sample_linear_matrix_free",
            "d": config.d,
            "k": config.d,
            "true_rank": config.true_rank,
            "samples": config.samples,
            "learning_rate": config.learning_rate,
            "steps": config.steps,
            "every": 5,
            **config.where,
        },
        together={
            "method": [
                {"name": method, "init_std": config.init_std} if method == "lora" else method
                for method, _ in points
            ],
            "rank": [rank for _, rank in points],
        },
        axes={"noise_std": config.noise, "seed": range(config.trials)},
        measure={
            "end": {"record": "risk", "reduce": "final"},
            "best": {"record": "risk", "reduce": "minimum"},
        },
    )


def run(config: Config, progress: Progress) -> Data:
    """Risks at the end and at the best step, (method, r, σ, seed)."""
    return maps(
        lambda folder: sweep_of(config, folder),
        config.folder,
        ("end", "best"),
        axes=("point", "noise_std", "seed"),
        shape=(len(METHODS), len(config.ranks)),
        workers=config.workers,
        progress=progress,
    )


def edge(config: Config, sigma: np.ndarray) -> np.ndarray:
    """The top singular value of the noise beside Δ, σ(√(d − r*) + √(k − r*))/√N to first order."""
    return sigma * 2 * np.sqrt((config.d - config.true_rank) / config.samples)


def grown(config: Config, sigma: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """T·ln(1 + ηs) − ln(2√s/(α√r)): positive where the noise has had the time to grow.

    From B = 0, the factors along a singular pair grow as α√r·(1 + ηs)^t/2 each.
    """
    s = edge(config, sigma)
    growth = config.steps * np.log1p(config.learning_rate * s)
    return growth - np.log(2 * np.sqrt(s) / (config.init_std * np.sqrt(rank)))


def floor(config: Config, sigma: float) -> float:
    """The mean risk of the best fit of rank r*."""
    return predict.mean_noise_floor(
        samples=config.samples,
        d=config.d,
        k=config.d,
        rank=config.true_rank,
        noise_std=sigma,
    )


def with_surplus(config: Config, sigma: float, rank: int) -> float:
    """The mean risk of the best fit of rank r, over the floor."""
    surplus = predict.surplus(
        samples=config.samples,
        d=config.d,
        k=config.d,
        rank=rank,
        true_rank=config.true_rank,
        noise_std=sigma,
    )
    return 1 + surplus / floor(config, sigma)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Three maps, and the ratio against the rank at one σ."""
    figure, axes = plotting.figure(2, 2, height=4.8)
    maps, curves = list(axes.flat)[:3], axes[1, 1]
    noise, ranks = np.array(config.noise), np.array(config.ranks)
    floors = np.array([floor(config, sigma) for sigma in config.noise])
    borders = (np.exp(plotting.edges(np.log(noise))), plotting.edges(np.arange(len(ranks))))
    fine = np.geomspace(*borders[0][[0, -1]], 200)
    place = np.linspace(borders[1][0], borders[1][-1], 200)
    onset = grown(config, fine[None], np.interp(place, np.arange(len(ranks)), ranks)[:, None])
    lost = np.interp(1.0, edge(config, fine), fine)
    dashed = {"color": "white", "linestyle": "--", "linewidth": 1.4}
    dashdot = {"color": "white", "linestyle": "-.", "linewidth": 1.4}
    for ax, (_, method, name) in zip(maps, PANELS, strict=True):
        ratio = data[name][method].mean(-1) / floors
        ax.grid(visible=False)
        shown = ax.pcolormesh(
            *borders, np.log2(ratio), cmap="viridis", vmin=-1, vmax=3, rasterized=True
        )
        if method == 0:
            ax.contour(fine, place, onset, levels=[0.0], colors="white", linestyles="--")
        ax.axvline(lost, **dashdot)
        ax.set(xscale="log", xlim=borders[0][[0, -1]], xlabel=r"label noise $\sigma$")
        ax.set(yticks=np.arange(len(ranks)), yticklabels=ranks, ylabel="rank $r$")
    bar = figure.colorbar(shown, ax=list(axes.flat), label="risk / floor of rank $r_*$", pad=0.02)
    bar.set_ticks([-1, 0, 1, 2, 3], labels=["½", "1", "2", "4", "8"])
    at = int(np.abs(np.log(noise / config.shown)).argmin())
    theory = {"color": plotting.THEORY, "linestyle": ":", "linewidth": 1.2}
    curves.plot(ranks, [with_surplus(config, noise[at], r) for r in config.ranks], **theory)
    for (_, method, name), look in zip(PANELS, LOOKS, strict=True):
        plotting.spread(curves, ranks, data[name][method][:, at] / floors[at], ls="", **look)
    curves.set(xlabel="rank $r$", ylabel="risk / floor")
    plotting.label_panels(maps, [title for title, _, _ in PANELS])
    curves.set_title(rf"(d) $\sigma={noise[at]:.2g}$", loc="left")
    handles = [plotting.key(f"(d) {p[0]}", ls="", **k) for p, k in zip(PANELS, LOOKS, strict=True)]
    grey = {"color": "#808080"}
    handles += [
        plotting.key(r"(d) top $r-r_*$ of the noise", **theory),
        plotting.key("noise has grown by the end", **{**dashed, **grey}),
        plotting.key(r"noise as large as $\Delta$", **{**dashdot, **grey}),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return {"fig_noise_map": figure}
