"""Label noise: the risk at the end against σ and rank, and early stopping from small starts."""

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
from loraone_theory.experiment import Data, Progress


# Expect: (a) all minima on their floors, σ² times a constant, until the edge of the noise (dotted)
# nears λ*; one step costs (d+1)‖Δ‖²/2N more, which stops to matter as σ grows. (b) The risk at the
# end rises with every rank beyond r*, on the line of the top singular values of noise. (c) From a
# small start the risk first falls to about the floor of rank r*, then climbs to that of rank r, and
# (d) the best stop is there for every α small enough, while the end never is; a large start learns
# the noise at once. (The largest α has not come to its end yet.)
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """The linear model with Y = X(W + Δ) + Z, all singular values of Δ equal to 1."""

    trials: int = 24
    """Number of trials; trial i has seed i."""
    d: int = 40
    """Input and output width, d = k."""
    true_rank: int = 2
    """r*."""
    samples: int = 400
    """N."""
    noise: tuple[float, ...] = tuple(float(x) for x in np.geomspace(0.03, 3.0, 11))
    """σ of (a)."""
    ranks: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 40)
    """r of (b)."""
    noise_std: float = 0.3
    """σ of (b), (c) and (d)."""
    rank: int = 8
    """r of (a), (c) and (d) where it is more than r*."""
    inits: tuple[float, ...] = (0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
    """α of (d)."""
    shown: tuple[float, ...] = (0.1, 1e-4, 1e-8)
    """Those of them in (c)."""
    learning_rate: float = 0.1
    """η of (c) and (d)."""
    steps: int = 3000
    """How many steps of (c) and (d)."""
    every: int = 5
    """Steps from one record to the next."""


# Sums over d = 40; singular vectors of the noise turn with gaps of some 1/40 of their size, and
# growth from α = 1e-8 multiplies relative perturbations by its logarithm alone.
TOLERANCE = agreement.tolerance(size=400, growth=1e2)

SMOKE = Config(
    trials=2,
    d=12,
    samples=120,
    noise=(0.1, 1.0),
    ranks=(2, 4, 12),
    rank=4,
    inits=(0.1, 1e-3),
    shown=(0.1, 1e-3),
    steps=400,
)


def instances(config: Config, sigma: float) -> lt.LinearProblem:
    """Instances whose draws are the same for every σ."""
    return lt.sample_linear_matrix_free(
        d=config.d,
        k=config.d,
        true_rank=config.true_rank,
        samples=config.samples,
        noise_std=sigma,
        seeds=range(config.trials),
        **config.where,
    )


def best(M: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of rank r."""
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U[..., :rank] * S[..., None, :rank]) @ Vh[..., :rank, :]


def least(problem: lt.LinearProblem, rank: int) -> np.ndarray:
    """Risk where the training loss is least over rank r: C⁻¹ times the best rank-r part of Ỹ."""
    C = torch.diag_embed(problem.covariance.c) + torch.diag_embed(problem.covariance.f, 1)
    return risk(problem, torch.linalg.solve(C, best(problem.answer, rank)))


def risk(problem: lt.LinearProblem, M: torch.Tensor) -> np.ndarray:
    """½‖M − Δ‖²."""
    return (0.5 * ((M - problem.shift.dense()) ** 2).sum((-2, -1))).cpu().numpy()


def run(config: Config, progress: Progress) -> Data:
    """Risks: of (a) (what, σ, seed), of (b) (rank, seed), of (c) and (d) (time, α, seed)."""
    ends = [[], [], [], []]
    for sigma in config.noise:
        problem = instances(config, sigma)
        one = best(problem.one_step_gradient().dense(), config.true_rank)
        ends[0].append(least(problem, config.d))
        ends[1].append(least(problem, config.rank))
        ends[2].append(risk(problem, one))
        ends[3].append(least(problem, config.true_rank))
    problem = instances(config, config.noise_std)
    of_rank = [least(problem, rank) for rank in config.ranks]
    made = lt.simulate(
        problem,
        "lora",
        rank=config.rank,
        learning_rate=config.learning_rate,
        steps=config.steps,
        init_std=config.inits,
        record=("risk",),
        every=config.every,
        progress=lambda done: progress(done / config.steps),
    )
    full = lt.simulate(
        problem,
        "full",
        rank=1,
        learning_rate=config.learning_rate,
        steps=config.steps // 10,
        record=("risk",),
    )
    return {
        "ends": np.array(ends),
        "of_rank": np.stack(of_rank),
        "steps": made.steps,
        "risk": made["risk"].cpu().numpy(),
        "full": full["risk"].cpu().numpy(),
    }


def floors(config: Config, ranks: tuple[int, ...], sigma: float) -> np.ndarray:
    """Predicted mean risk at the end for each rank >= r*."""
    size = {"samples": config.samples, "d": config.d, "k": config.d, "noise_std": sigma}
    base = predict.mean_noise_floor(rank=config.true_rank, **size)
    more = [predict.surplus(rank=r, true_rank=config.true_rank, **size) for r in ranks]
    return base + np.array(more)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Four panels, and the floors in each."""
    figure, axes = plotting.figure(2, 2, height=5.2)
    (against_noise, against_rank), (in_time, against_start) = axes
    theory = {"color": plotting.THEORY, "linestyle": "--", "linewidth": 0.9}
    colours = {"full": "black", "rank": plotting.VERMILLION, "one": plotting.GREEN}
    colours["true"] = plotting.BLUE
    _noise(against_noise, data, config, colours, theory)
    ranks = np.array(config.ranks)
    look = {"color": plotting.VERMILLION, "marker": "s", "linestyle": "none"}
    plotting.spread(against_rank, ranks, data["of_rank"], **look)
    against_rank.plot(ranks, floors(config, config.ranks, config.noise_std), **theory)
    full = predict.mean_full_floor(
        samples=config.samples, d=config.d, k=config.d, noise_std=config.noise_std
    )
    against_rank.axhline(full, color="black", linestyle=":", linewidth=0.9)
    against_rank.set(xlabel="rank $r$", ylabel="risk", ylim=(0, None))
    low, high = floors(config, (config.true_rank, config.rank), config.noise_std)
    stopped = data["full"].mean(-1).min()
    for ax in (in_time, against_start):
        ax.axhline(low, color=colours["true"], linestyle="--", linewidth=1)
        ax.axhline(high, color=colours["rank"], linestyle="--", linewidth=1)
        ax.axhline(stopped, color="black", linestyle=":", linewidth=1)
        ax.set(yscale="log", ylim=(0.6 * low, 1.5))
    shades = plotting.sequence(len(config.shown))
    for i, alpha in enumerate(config.shown):
        curve = data["risk"][:, config.inits.index(alpha)]
        plotting.band(in_time, data["steps"], curve, color=shades[i])
    plotting.log_time(in_time)
    in_time.set(ylabel="risk", xlim=(5, config.steps))
    alphas = np.array(config.inits)
    ends = {"marker": "s", "color": colours["rank"], "linestyle": "-", "linewidth": 0.8}
    plotting.spread(
        against_start,
        alphas,
        data["risk"].min(0),
        **(ends | {"marker": "o", "color": colours["true"]}),
    )
    plotting.spread(against_start, alphas, data["risk"][-1], **ends)
    against_start.set(xscale="log", xlabel=r"initial size $\alpha$", ylabel="risk")
    titles = (
        f"at the end, $r={config.rank}$ or $r^*$",
        rf"at the end, $\sigma={config.noise_std:g}$",
        rf"on the way, $r={config.rank}$",
        "stopped or run on",
    )
    plotting.label_panels(axes.ravel(), titles)
    handles = [
        plotting.key("full", color="black", marker="D", linestyle="none"),
        plotting.key(f"$r={config.rank}$, end", color=colours["rank"], marker="s", ls="none"),
        plotting.key("$r=r^*$, one step", color=colours["one"], marker="^", ls="none"),
        plotting.key("$r=r^*$, end; (d) best stop", color=colours["true"], marker="o", ls="none"),
        plotting.key("predicted", **theory),
        plotting.key("full, end or best stop", color="black", ls=":", linewidth=1),
    ]
    handles += [
        plotting.key(rf"(c) $\alpha={plotting.power_of_ten(alpha)}$", color=shades[i])
        for i, alpha in enumerate(config.shown)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return {"fig_noise": figure}


def _noise(
    ax: plotting.Axes, data: Data, config: Config, colours: dict[str, str], theory: dict
) -> None:
    """Panel (a)."""
    sigma = np.array(config.noise)
    size = {"samples": config.samples, "d": config.d, "k": config.d}
    high = [floors(config, (config.rank,), s)[0] for s in config.noise]
    one = [
        (
            (config.d + 1) * config.true_rank
            + s**2 * config.true_rank * (2 * config.d - config.true_rank)
        )
        / (2 * config.samples)
        for s in config.noise
    ]
    lines = (
        [predict.mean_full_floor(noise_std=s, **size) for s in config.noise],
        high,
        one,
        [
            predict.mean_noise_floor(rank=config.true_rank, noise_std=s, **size)
            for s in config.noise
        ],
    )
    marks = zip(("full", "rank", "one", "true"), ("D", "s", "^", "o"), strict=True)
    for values, line, (name, marker) in zip(data["ends"], lines, marks, strict=True):
        look = {"color": colours[name], "marker": marker, "linestyle": "none", "markersize": 3.5}
        plotting.spread(ax, sigma, values, **look)
        ax.plot(sigma, line, **theory)
    edge = (config.samples / config.d) ** 0.5 / 2  # 2σ√(d/N) = λ* = 1
    ax.axvline(edge, color=plotting.THEORY, linestyle=":", linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel=r"label noise $\sigma$", ylabel="risk")
