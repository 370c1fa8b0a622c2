"""ReLU model: preconditioning removes the condition number; few samples break the envelope."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress

METHODS = ("lora-one", "lora-one-preconditioned")
COLOURS = (plotting.BLUE, plotting.VERMILLION)


# Expect: at N = ∞ the preconditioned curves of all κ lie on (1 − η/2)ᵗ, gradient descent takes κ
# times as long. At N/d = 4 the preconditioned curves cross the paper's (1 − η/4)ᵗ after about ten
# steps and stay above it; from N/d = 16 on they stay below. Panel (d): the contraction per step
# is level in κ for the one and falls as 1/κ for the other, at every N.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """LoRA-One from Spectral-init by both rules, r = r*; ‖Δ‖_op = 1 by choice of units."""

    trials: int = 2
    """Number of trials; trial i has seed i."""
    d: int = 50
    """Input and output width, d = k."""
    rank: int = 2
    """r = r*."""
    relative_shift: float = 0.1
    """c, the largest ‖Δ_m‖/‖w_m‖."""
    condition_numbers: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    """κ; the singular values are geometric."""
    ratios: tuple[int, ...] = experiment.knob((4, 16, 64, 256), empty=True)
    """N/d, beside N = ∞."""
    learning_rate: float = 0.5
    """η of both rules."""
    steps: int = 450
    """How many preconditioned steps; 450 take N/d = 4 to 1e-9."""
    steps_per_kappa: int = 40
    """Gradient descent runs for κ times as many."""
    records: int = 120
    """About how many points of each curve to store, evenly spaced in ln t."""


# Sums over N; rates are fitted to the error at condition numbers up to 30.
TOLERANCE = agreement.tolerance(size=256 * 50, growth=1e2)

SMOKE = Config(d=16, condition_numbers=(1.0, 3.0), ratios=(6, 16), steps=60, steps_per_kappa=20)


def run(config: Config, progress: Progress) -> Data:
    """Error curves, relative to t = 0, and fitted rates, by rule, N/d (∞ last) and κ."""
    count = (len(config.ratios) + 1, len(config.condition_numbers), config.trials)
    data: Data = {f"{name}.rate": np.full(count, np.nan) for name in METHODS}
    sizes = [*config.ratios, None]
    work = [min(ratio or 2, 256) * k for ratio in sizes for k in config.condition_numbers]
    for i, ratio in enumerate(sizes):
        for j, kappa in enumerate(config.condition_numbers):
            problem = instances(config, ratio, kappa)
            for name in METHODS:
                run = lt.simulate(
                    problem,
                    name,
                    rank=config.rank,
                    learning_rate=config.learning_rate,
                    steps=length(config, name, kappa, ratio),
                    seeds=range(config.trials),
                    record=("error",),
                )
                error = run["error"].cpu().numpy()
                kept = plotting.thinned(len(run.steps), config.records)
                data[f"{name}.{i}.{j}.steps"] = run.steps[kept]
                data[f"{name}.{i}.{j}.error"] = (error / error[0])[kept]
                data[f"{name}.rate"][i, j] = tail_rate(error)
            done = i * len(config.condition_numbers) + j + 1
            progress(sum(work[:done]) / sum(work))
    return data


def instances(
    config: Config, ratio: int | None, kappa: float
) -> lt.ReLUProblem | lt.ReLUPopulation:
    """A batch of instances that shares W, frames and, as far as they go, inputs with the others."""
    sizes: dict[str, Any] = {
        "d": config.d,
        "k": config.d,
        "true_rank": config.rank,
        "relative_shift": config.relative_shift,
        "condition_number": kappa,
        "seeds": range(config.trials),
        **config.where,
    }
    if ratio is None:
        return lt.sample_relu_population(**sizes).with_shift_norm()
    return lt.sample_relu(**sizes, samples=ratio * config.d).with_shift_norm()


def length(config: Config, name: str, kappa: float, ratio: int | None) -> int:
    """Steps of a run: what the slowest mode takes to 1e-9, but no more than asked for."""
    if name == "lora-one":
        return math.ceil(config.steps_per_kappa * max(kappa, 3))
    rate = predict.relu.population_rate(config.learning_rate)
    if ratio is not None:
        samples = ratio * config.d
        rate = predict.relu.finite_rate(config.learning_rate, samples=samples, d=config.d)
    return min(config.steps, math.ceil(1.2 * math.log(1e-9) / math.log(rate)))


def tail_rate(error: np.ndarray) -> np.ndarray:
    """The factor per step over the last quarter above 1e-11 of the start, for each run.

    Args:
        error: (T, runs).
    """
    rates = []
    for curve in (error / error[0]).T:
        last = int(np.flatnonzero(curve > 1e-11)[-1])
        first = last - max(1, last // 4)
        rates.append((curve[last] / curve[first]) ** (1 / (last - first)))
    return np.array(rates)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Curves at N = ∞; preconditioned and plain curves on N samples; contraction against κ."""
    figure, axes = plotting.figure(2, 2, height=5.6)
    top, finite, plain, rates = axes.flat
    dashes = ("-", plotting.DASHDOT, plotting.SHORT, ":")
    infinite = len(config.ratios)
    for j in range(len(config.condition_numbers)):
        for name, colour in zip(METHODS, COLOURS, strict=True):
            _curve(top, data, name, infinite, j, color=colour, linestyle=dashes[j % 4])
    shades = plotting.sequence(infinite)
    for i, ratio in enumerate(config.ratios):
        for j in range(len(config.condition_numbers)):
            for ax, name in ((finite, METHODS[1]), (plain, METHODS[0])):
                width = 1.0 if ax is finite else 1.3
                style = {"color": shades[i], "linestyle": dashes[j % 4], "linewidth": width}
                _curve(ax, data, name, i, j, **style)
        samples = ratio * config.d
        rate = predict.relu.finite_rate(config.learning_rate, samples=samples, d=config.d)
        _power(finite, rate, data, i, color=shades[i], marker="o", markersize=3, linestyle="none")
    _power(top, predict.relu.population_rate(config.learning_rate), data, infinite)
    for ax in (top, finite):
        _power(ax, predict.relu.envelope(config.learning_rate), data, 0, linestyle="--")
    for ax in (top, finite, plain):
        ax.set(yscale="log", ylabel=r"$\Vert E_t\Vert_F\,/\,\Vert E_0\Vert_F$", ylim=(1e-10, 2))
        plotting.log_time(ax)
    longest = data[f"{METHODS[1]}.0.0.steps"][-1]
    finite.set(xscale="linear", xlim=(0, longest))
    plain.set_ylim(3e-6, 2)
    _contraction(rates, data, config, shades)
    titles = (r"$N=\infty$, both rules", "preconditioned", "gradient descent", "contraction")
    plotting.label_panels(list(axes.flat), titles)
    grey = {"color": plotting.THEORY}
    handles = [
        plotting.key(text, color=colour)
        for text, colour in zip(("gradient descent", "preconditioned"), COLOURS, strict=True)
    ]
    handles += [
        plotting.key(rf"$\kappa={value:g}$", linestyle=dashes[j % 4], **grey)
        for j, value in enumerate(config.condition_numbers)
    ]
    handles += [
        plotting.key(f"$N/d={ratio}$", color=shades[i]) for i, ratio in enumerate(config.ratios)
    ]
    handles += [
        plotting.key(r"guaranteed, $(1-\eta/4)^t$", linestyle="--", **grey),
        plotting.key("predicted rate", marker="o", markersize=3, linestyle="none", **grey),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_relu_convergence": figure}


def _curve(ax: plotting.Axes, data: Data, name: str, i: int, j: int, **line: Any) -> None:
    error = np.clip(data[f"{name}.{i}.{j}.error"], 1e-15, None)
    plotting.band(ax, data[f"{name}.{i}.{j}.steps"], error, **line)


def _power(ax: plotting.Axes, rate: float, data: Data, i: int, **line: Any) -> None:
    """rateᵗ until the end of the preconditioned curve; as markers, at a few places."""
    end = data[f"{METHODS[1]}.{i}.0.steps"][-1]
    t = np.linspace(0, end, 200)
    style = {"color": plotting.THEORY, "marker": "o", "markersize": 3, "linestyle": "none", **line}
    if style["linestyle"] == "none":
        t = np.arange(12, end, 12)
    else:
        style["marker"] = ""
    ax.plot(t, rate**t, **style)


def _contraction(ax: plotting.Axes, data: Data, config: Config, shades: list) -> None:
    kappa, eta = np.array(config.condition_numbers), config.learning_rate
    aside = np.linspace(-0.06, 0.06, len(config.ratios) + 1)
    for i, colour in enumerate([*shades, "black"]):
        for name, marker in zip(METHODS, "sD", strict=True):
            gap = 1 - data[f"{name}.rate"][i]
            line = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3.5}
            plotting.spread(ax, kappa * np.exp(aside[i]), gap, **line)
    for i, ratio in enumerate(config.ratios):
        samples = ratio * config.d
        level = 1 - predict.relu.finite_rate(eta, samples=samples, d=config.d)
        ax.plot(kappa, np.full_like(kappa, level), color=shades[i], linewidth=0.8)
    best = 1 - predict.relu.population_rate(eta)
    line = {"color": "black", "linewidth": 0.8}
    ax.plot(kappa, np.full_like(kappa, best), **line)
    plain = [1 - predict.relu.gd_rate(eta, condition_number=value) for value in kappa]
    ax.plot(kappa, plain, **line)
    guaranteed = 1 - predict.relu.envelope(eta)
    ax.axhline(guaranteed, color=plotting.THEORY, linestyle="--", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel=r"condition number $\kappa$", ylabel="$1-$ rate")
    line = {"color": plotting.THEORY, "linestyle": "none", "markersize": 3.5}
    handles = [
        plotting.key("preconditioned", marker="D", **line),
        plotting.key("gradient descent", marker="s", **line),
        plotting.key(r"black: $N=\infty$", linestyle="none"),
    ]
    ax.legend(handles=handles, loc="lower left")
