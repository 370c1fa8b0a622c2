"""Gradient descent slows down as 1/κ; preconditioned gradient descent does not."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass, replace

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress, part

METHODS = ("lora-one", "lora-one-preconditioned")
RULES = ("gd", "preconditioned")


# Expect: on log-log axes 1 − rate of gradient descent falls with slope −1 in κ, that of the
# preconditioned rule is level, and both lie on the rates predicted from the instance.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """LoRA-One from Spectral-init by both rules, r = r*."""

    trials: int = 8
    """Number of trials; trial i has seed i. Every κ uses the same inputs and frames."""
    d: int = 60
    """Input and output width, d = k."""
    samples: int = 1600
    """N."""
    rank: int = 4
    """r = r*."""
    condition_numbers: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    """κ; the singular values are geometric from 1 to 1/κ."""
    shown: tuple[float, ...] = (1.0, 10.0, 100.0)
    """κ of the convergence curves."""
    learning_rate: float = 0.25
    """η of gradient descent."""
    preconditioned_learning_rate: float = 0.5
    """η of preconditioned gradient descent."""
    steps: int = 12000
    """How many steps of gradient descent."""
    preconditioned_steps: int = 200
    """How many steps of preconditioned gradient descent."""
    window: tuple[float, float] = (1e-7, 1e-11)
    """‖E‖_F, relative to t = 0, between which the rate is fitted."""
    records: int = 150
    """About how many points of each curve to store, evenly spaced in ln t."""


# Rates are fitted down to the end of the window, an error which is that far below the floor.
TOLERANCE = agreement.tolerance(size=60, growth=agreement.floor() / Config.window[-1])

SMOKE = Config(
    trials=2,
    d=20,
    samples=600,
    rank=2,
    condition_numbers=(1.0, 10.0),
    shown=(1.0, 10.0),
    steps=1500,
)


def instances(config: Config) -> lt.LinearProblem:
    """A batch (κ, seed) that shares its inputs and singular frames across κ."""
    problem = lt.sample_linear(
        d=config.d,
        k=config.d,
        true_rank=config.rank,
        samples=config.samples,
        seeds=range(config.trials),
        **config.where,
    )
    spectra = np.stack([np.geomspace(1, 1 / k, config.rank) for k in config.condition_numbers])
    values = problem.like.new_tensor(spectra)[:, None, None, :]
    B = problem.shift.B.expand(len(spectra), *problem.shift.B.shape)
    return replace(problem, shift=lt.Factors(problem.shift.A * values, B), pretrained=None)


def run(config: Config, progress: Progress) -> Data:
    """Curves, measured rates and predicted rates of both rules."""
    problem = instances(config)
    settings = (
        (config.learning_rate, config.steps),
        (config.preconditioned_learning_rate, config.preconditioned_steps),
    )
    data: Data = {}
    for i, (eta, steps) in enumerate(settings):
        run = lt.simulate(
            problem,
            METHODS[i],
            rank=config.rank,
            learning_rate=eta,
            steps=steps,
            seeds=range(config.trials),
            record=("error",),
            progress=part(progress, i, len(settings), steps),
        )
        error = run["error"].cpu().numpy()
        predicted = predict.local_rate(problem, rule=RULES[i], learning_rate=eta)
        kept = [config.condition_numbers.index(kappa) for kappa in config.shown]
        thin = plotting.thinned(len(run.steps), config.records)
        data[f"{RULES[i]}.steps"] = run.steps[thin]
        data[f"{RULES[i]}.error"] = error[thin][:, kept]
        data[f"{RULES[i]}.rate"] = fitted_rate(run.steps, error, config.window)
        data[f"{RULES[i]}.predicted_rate"] = predicted.cpu().numpy()
    return data


def fitted_rate(steps: np.ndarray, error: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """exp of the least-squares slope of ln‖E_t‖ while it is inside the window; NaN where it is not.

    Args:
        steps: (T,).
        error: (T, ...).
        window: upper and lower end, relative to t = 0.
    """
    relative = error / error[0]
    inside = (relative <= window[0]) & (relative >= window[1])
    rates = np.full(error.shape[1:], np.nan)
    for index in np.ndindex(rates.shape):
        chosen = inside[(slice(None), *index)]
        if chosen.sum() >= 3:
            values = np.log(relative[(chosen, *index)])
            rates[index] = np.exp(np.polynomial.polynomial.polyfit(steps[chosen], values, 1)[1])
    return rates


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Convergence for several κ; 1 − rate against κ."""
    figure, axes = plotting.figure(1, 2, height=3.1)
    left, right = axes[0]
    dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.")
    names = ("gradient descent", "preconditioned")
    colours = (plotting.BLUE, plotting.VERMILLION)
    kappa = np.array(config.condition_numbers)
    for rule, colour, below in zip(RULES, colours, (False, True), strict=True):
        steps = data[f"{rule}.steps"]
        for i in range(len(config.shown)):
            error = np.clip(data[f"{rule}.error"][:, i], 1e-16, None)
            plotting.band(left, steps, error, color=colour, linestyle=dashes[i % len(dashes)])
        gap = 1 - data[f"{rule}.rate"]
        plotting.spread(right, kappa, gap, color=colour, marker="o", linestyle="none")
        predicted = (1 - data[f"{rule}.predicted_rate"]).mean(-1)
        right.plot(kappa, predicted, color=colour, linestyle="--", linewidth=1)
        whole = np.isfinite(gap).all(-1)
        if whole.sum() >= 2:
            mean = np.log(gap[whole].mean(-1))
            slope = np.polynomial.polynomial.polyfit(np.log(kappa[whole]), mean, 1)[1]
            place = (kappa[whole][-3:][0], predicted[whole][-3:][0])
            right.annotate(
                f"slope ${slope:.3f}$",
                place,
                xytext=(0, -12 if below else 8),
                textcoords="offset points",
                color=colour,
            )
    left.set(yscale="log", ylabel=r"$\Vert A_tB_t-\Delta\Vert_F$", ylim=(1e-13, 3))
    plotting.log_time(left)
    right.set(
        xscale="log",
        yscale="log",
        xlabel=r"condition number $\kappa$",
        ylabel=r"$1-$ rate",
    )
    plotting.label_panels((left, right), ("convergence", "contraction per step"))
    handles = [plotting.key(n, color=c) for n, c in zip(names, colours, strict=True)]
    handles += [
        plotting.key(rf"$\kappa={value:g}$", color=plotting.THEORY, linestyle=dashes[i % 4])
        for i, value in enumerate(config.shown)
    ]
    handles += [
        plotting.key("measured", color=plotting.THEORY, marker="o", linestyle="none"),
        plotting.key("predicted", color=plotting.THEORY, linestyle="--", linewidth=1),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_condition_number": figure}
