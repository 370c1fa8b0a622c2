"""Trajectories for d = 2, k = r = 1: LoRA-init and Spectral-init on the way to the minimisers."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from typing import Any

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.experiment import Data, Progress

METHODS = ("lora", "lora-one")
NAMES = ("LoRA-init", "Spectral-init")


# Expect: Spectral-init starts on the balanced surface near the curve of global minimisers a·b = Δ
# and arrives sooner, both on about 95 % of the seeds. With 4 samples Σ̂ is far from I on some, so
# its start can be far off and both histograms of steps have tails; runs that did not get there
# within `steps` are counted in the legend.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Gradient descent on a ∈ R² and b ∈ R, with W = 0 and ‖Δ‖ = 1."""

    trials: int = 1000
    """Number of trials of the histograms; trial i has seed i."""
    samples: int = 4
    """N."""
    learning_rate: float = 0.1
    """η."""
    init_std: float = 0.5**0.5
    """α of LoRA-init: 1/√d, the usual size."""
    steps: int = 10_000
    """How many steps at most."""
    tolerance: float = 1e-6
    """‖AB − Δ‖_F at which a run has arrived."""
    shown: tuple[int, int] = experiment.knob((0, 1), least=0)
    """Seeds of the trajectories in space."""
    frames: int = 300
    """Steps of the trajectories in space."""


# d = 2; LoRA-init may pass the saddle at 0 within 1e-2 of it.
TOLERANCE = agreement.tolerance(size=4, growth=1e2)

SMOKE = Config(trials=20, steps=300, frames=40)


def run(config: Config, progress: Progress) -> Data:
    """Paths of the shown seeds; distance at t = 0 and steps to arrive of all seeds."""
    data: Data = {}
    for i, (method, name) in enumerate(zip(METHODS, NAMES, strict=True)):
        init_std = {"init_std": config.init_std} if method == "lora" else {}
        common: dict[str, Any] = {"rank": 1, "learning_rate": config.learning_rate}
        run = lt.simulate(
            _problem(config, range(config.trials)),
            method,
            steps=config.steps,
            seeds=range(config.trials),
            record=("error",),
            progress=experiment.part(progress, i, len(METHODS), config.steps),
            **common,
            **init_std,
        )
        error = run["error"].cpu().numpy()
        arrived = error <= config.tolerance
        data[f"{name}.steps"] = np.where(arrived.any(0), arrived.argmax(0), -1)
        delta = _problem(config, range(config.trials)).shift.dense()[..., 0].cpu().numpy()
        a, b = run.initial.A[..., 0].cpu().numpy(), run.initial.B[..., 0, 0].cpu().numpy()
        data[f"{name}.distance"] = distance(a, b, delta)

        shown = _problem(config, config.shown)
        kept = lt.simulate(
            shown,
            method,
            steps=config.frames,
            seeds=config.shown,
            keep_factors=1,
            **common,
            **init_std,
        ).factors
        assert kept is not None
        a, b = kept.A[..., 0].cpu().numpy(), kept.B[..., 0].cpu().numpy()
        data[f"{name}.path"] = np.concatenate([a, b], axis=-1)  # (t, shown, (a1, a2, b))
        data["shift"] = shown.shift.dense()[..., 0].cpu().numpy()
    return data


def _problem(config: Config, seeds: Any) -> lt.LinearProblem:
    return lt.sample_linear(
        d=2, k=1, true_rank=1, samples=config.samples, seeds=seeds, **config.where
    )


def distance(a: np.ndarray, b: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Distance of (a, b) from the curve {(Δ/β, β) : β ≠ 0} of global minimisers, exact.

    The nearest β is a root of β⁴ − bβ³ + (a·Δ)β − ‖Δ‖². The distance at the real part of any
    root is that of some point of the curve and the nearest point is among them, so the least
    value needs no test of which roots are real.

    Args:
        a: (n, 2).
        b: (n,).
        delta: (n, 2).
    """
    companion = np.zeros((len(b), 4, 4))
    companion[:, [1, 2, 3], [0, 1, 2]] = 1
    companion[:, 0, 3] = (delta * delta).sum(-1)
    companion[:, 1, 3] = -(a * delta).sum(-1)
    companion[:, 3, 3] = b
    beta = np.linalg.eigvals(companion).real[..., None]  # (n, 4, 1)
    beta = np.where(beta == 0, np.inf, beta)
    away = np.concatenate([a[:, None] - delta[:, None] / beta, b[:, None, None] - beta], axis=-1)
    return np.linalg.norm(away, axis=-1).min(-1)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Two seeds in space above, histograms over all seeds below."""
    figure = plotting.figure(height=6.4)[0]
    figure.clear()
    grid = figure.add_gridspec(2, 2, height_ratios=(1.45, 1))
    colours = (plotting.VERMILLION, plotting.BLUE)
    for i, seed in enumerate(config.shown):
        ax = figure.add_subplot(grid[0, i], projection="3d")
        paths = [data[f"{name}.path"][:, i] for name in NAMES]
        _space(ax, paths, data["shift"][i], colours)
        ax.set_title(f"({'ab'[i]}) seed {seed}", loc="left")
    near, long = (figure.add_subplot(grid[1, i]) for i in (0, 1))
    edges = np.linspace(0, max(data[f"{name}.distance"].max() for name in NAMES), 41)
    most = config.steps + 1
    taken = [np.where(data[f"{n}.steps"] < 0, most, data[f"{n}.steps"]) for n in NAMES]
    bins = np.geomspace(max(1, min(steps.min() for steps in taken)), most, 41)
    for name, steps, colour in zip(NAMES, taken, colours, strict=True):
        fill = {"color": colour, "alpha": 0.55, "linewidth": 0}
        near.hist(data[f"{name}.distance"], bins=edges, **fill)
        late = int((steps == most).sum())
        label = f"median {np.median(steps):.0f}, {late} not within {config.steps}"
        long.hist(steps[steps < most], bins=bins, label=label, **fill)
    closer = (data[f"{NAMES[1]}.distance"] < data[f"{NAMES[0]}.distance"]).mean()
    sooner = (taken[1] < taken[0]).mean()
    near.set(xlabel="distance to the minimisers at $t=0$", ylabel=f"seeds of {config.trials}")
    long.set(
        xlabel=rf"steps to $\Vert AB-\Delta\Vert_F\leq {plotting.power_of_ten(config.tolerance)}$",
        ylabel=f"seeds of {config.trials}",
        xscale="log",
    )
    long.set_ylim(0, 1.4 * long.get_ylim()[1])
    long.legend(loc="upper right")
    near.set_title(f"(c) start: Spectral nearer on {closer:.1%}", loc="left")
    long.set_title(f"(d) arrival: Spectral sooner on {sooner:.1%}", loc="left")
    handles = [plotting.key(n, color=c) for n, c in zip(NAMES, colours, strict=True)]
    handles += [
        plotting.key(text, color=plotting.THEORY, marker=marker, linestyle="none")
        for text, marker in (("start", "o"), ("end", "*"))
    ]
    handles.append(plotting.key(r"minimisers $ab=\Delta$", color=plotting.THEORY))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return {"fig_trajectories": figure}


def _space(ax: Any, paths: list[np.ndarray], delta: np.ndarray, colours: tuple[str, str]) -> None:
    reach = max(2.0, float(np.abs(np.concatenate(paths)).max()))
    floor = float(delta @ delta) ** 0.5 / reach
    for sign in {float(np.sign(path[-1, 2])) for path in paths}:  # the branches that are reached
        beta = sign * np.geomspace(floor, reach, 200)
        curve = delta[None] / beta[:, None]
        ax.plot(curve[:, 0], curve[:, 1], beta, color=plotting.THEORY, linewidth=1)
    for path, colour in zip(paths, colours, strict=True):
        ax.plot(*path.T, color=colour, marker=".", markersize=2, linewidth=0.9)
        ax.plot(*path[:1].T, color=colour, marker="o", markersize=5, linestyle="none")
        ax.plot(*path[-1:].T, color=colour, marker="*", markersize=8, linestyle="none")
    ax.set(xlabel="$a_1$", ylabel="$a_2$", zlabel="$b$")
    # Two or three round ticks an axis, away from the edges where those of its neighbours stand.
    for axis, (low, high) in zip(
        (ax.xaxis, ax.yaxis, ax.zaxis), (ax.get_xlim(), ax.get_ylim(), ax.get_zlim()), strict=True
    ):
        inner = (high - low) / 6
        ticks = axis.get_major_locator().tick_values(low, high)
        ticks = ticks[(ticks >= low + inner) & (ticks <= high - inner)]
        axis.set_ticks(ticks[:: max(1, -(-len(ticks) // 3))])
        axis.labelpad = -5
    ax.tick_params(pad=-2, labelsize=8)
    ax.view_init(elev=22, azim=-58)
    ax.set_box_aspect((1, 1, 1), zoom=1.15)
