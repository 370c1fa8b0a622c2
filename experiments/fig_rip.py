"""The restricted isometry constant against the number of measurements, with Gordon's bounds."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.experiment import Data, Progress, part

COLOURS = {
    "dense": plotting.BLUE,
    "rank-one": plotting.VERMILLION,
    "single-response": plotting.GREEN,
    "multi-response": plotting.ORANGE,
    "completion": plotting.PURPLE,
}


# Expect: (a, b) for dense measurements both sides of δ_r are 5 to 20 % below Gordon's bounds, which
# are not attained below full rank, for large m either: there both sides come to one share, some
# .85, of 2w/√m, which is 2√2·√(r(d+k)/m) for wide d = k. (c) At rank 1 other ensembles need far
# more: a rank-one measurement is itself a matrix of rank 1 and norm √(dk), so δ₁ is small only for
# m well beyond dk (dotted); rows measured at every output have δ_r = ‖Σ̂ − I‖; completion has
# δ₁ >= 1 until every entry is seen, and no isometry without.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Lower bounds on δ_r by alternation."""

    trials: int = 3
    """Number of trials; trial i has seed i."""
    d: int = 16
    """Rows and columns, d = k."""
    ranks: tuple[int, ...] = (1, 2)
    """r of (a) and (b)."""
    multiples: tuple[float, ...] = (2.0, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
    """m over r(d + k) in (a) and (b)."""
    ensembles: tuple[str, ...] = tuple(COLOURS)
    """Those of (c); completion with replacement."""
    measurements: tuple[int, ...] = (64, 160, 400, 1008, 2512, 6304)
    """m in (c), multiples of d."""
    restarts: int = 3
    """Random starts of each search."""
    sweeps: int = 60
    """Alternations at most."""
    precision: float = 1e-5
    """A search stops when no value changes by more than this times itself."""


# A search ends in one of several local optima, which a rounding can decide only at a tie; on the
# way to the same one it stops at the same sweep or the next: `precision` of 1 ± δ, which is below
# 10 times that of δ >= 0.1.
TOLERANCE = max(agreement.tolerance(size=6304), 10 * 1e-5)

SMOKE = Config(
    trials=1,
    d=6,
    ranks=(1, 2),
    multiples=(4.0, 16.0),
    measurements=(36, 144),
    restarts=1,
    sweeps=15,
    precision=1e-3,
)


def sides(config: Config, ensemble: str, m: int, rank: int) -> np.ndarray:
    """Both sides of δ_r, (2, seed)."""
    problem = lt.sample_sensing(
        ensemble=ensemble,
        d=config.d,
        k=config.d,
        true_rank=1,
        measurements=m,
        seeds=range(config.trials),
        **config.where,
    )
    found = lt.rip.estimate(
        problem.operator,
        rank,
        config.restarts,
        sweeps=config.sweeps,
        tolerance=config.precision,
    )
    return torch.stack([found.upper, found.lower]).cpu().numpy()


def counts(config: Config, rank: int) -> list[int]:
    """m of (a) and (b)."""
    return [round(c * rank * 2 * config.d) for c in config.multiples]


def run(config: Config, progress: Progress) -> Data:
    """Sides of δ_r: dense (rank, m, side, seed), of every ensemble (ensemble, m, side, seed)."""
    jobs = [("dense", m, r) for r in config.ranks for m in counts(config, r)]
    jobs += [(name, m, 1) for name in config.ensembles for m in config.measurements]
    found = []
    for i, (name, m, rank) in enumerate(jobs):
        found.append(sides(config, name, m, rank))
        part(progress, i, len(jobs))(1)
    cut = len(config.ranks) * len(config.multiples)
    first, second = np.stack(found[:cut]), np.stack(found[cut:])
    return {
        "dense": first.reshape(len(config.ranks), len(config.multiples), 2, config.trials),
        "ensembles": second.reshape(
            len(config.ensembles), len(config.measurements), 2, config.trials
        ),
    }


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Dense measurements at each rank, and the ensembles at rank 1."""
    figure, axes = plotting.figure(1, 3, height=3.2, sharey=True)
    colours = (plotting.BLACK, plotting.SKY)
    law = {"color": plotting.THEORY, "linestyle": ":", "linewidth": 1.2}
    gordon = {"linestyle": "--", "linewidth": 1}
    for ax, rank, found in zip(axes[0], config.ranks, data["dense"], strict=False):
        m = np.array(counts(config, rank))
        bounds = np.array([lt.rip.gordon_bounds(config.d, config.d, rank, int(n)) for n in m])
        for side in (0, 1):
            ax.plot(m, bounds[:, side], color=colours[side], **gordon)
            look = {"color": colours[side], "marker": "os"[side], "linestyle": "none"}
            plotting.spread(ax, m, found[:, side], **look)
        ax.plot(m, 2 * 2**0.5 * (rank * 2 * config.d / m) ** 0.5, **law)
        ax.set(xscale="log", yscale="log", xlabel="measurements $m$")
    ax, m = axes[0, 2], np.array(config.measurements)
    for i, name in enumerate(config.ensembles):
        delta = data["ensembles"][i].max(1)
        ax.plot(m, delta.mean(-1), color=COLOURS[name], linewidth=0.8)
        look = {"color": COLOURS[name], "marker": plotting.MARKERS[i], "linestyle": "none"}
        plotting.spread(ax, m, delta, **look)
    ax.axvline(config.d**2, color="#a0a0a0", linewidth=0.9, linestyle="-.")
    ax.set(xscale="log", xlabel="measurements $m$")
    axes[0, 0].set_ylabel(r"isometry constant $\delta_r$")
    axes[0, 0].set_ylim(0.12, 25)
    for ax in axes[0]:
        ax.tick_params(which="minor", labelbottom=False)
    titles = [rf"dense, $r={rank}$" for rank in config.ranks] + ["ensembles, $r=1$"]
    plotting.label_panels(axes[0], titles)
    handles = [
        plotting.key("upper side", color=colours[0], marker="o", ls=""),
        plotting.key("lower side", color=colours[1], marker="s", ls=""),
        plotting.key("Gordon", color=plotting.THEORY, **gordon),
        plotting.key(r"$2\sqrt{2}\,\sqrt{r(d+k)/m}$", **law),
        plotting.key("(c) $m=dk$", color="#a0a0a0", linewidth=0.9, linestyle="-."),
    ]
    handles += [
        plotting.key(f"(c) {name}", color=COLOURS[name], marker=plotting.MARKERS[i], linewidth=0.8)
        for i, name in enumerate(config.ensembles)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_rip": figure}
