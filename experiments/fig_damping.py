"""Twice the true rank: fixed damping makes convergence sublinear, an adaptive one linear again."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress, part

METHOD = "lora-one-preconditioned"
MODELS = ("relu", "linear")
# The linear gradient is twice the ReLU one at small error, and so is the step.
STRENGTH = {"relu": 1.0, "linear": 2.0}


# Expect: every fixed λ ends on its dashed line √(r − r*) λ/(ηt); the adaptive runs fall
# geometrically to rounding, the faster the smaller their factor; undamped runs do so too, but with
# singular Gram matrices, which their status reports. In the linear model without label noise G
# has rank r* exactly and Spectral-init leaves the superfluous directions at 0, where no rule moves
# them, so there they are given a size by hand; the ReLU model's G fills them on its own. By hand
# they overlap with Δ, whose learning unbalances their factors a little: late in the run, when that
# shows, the smaller factor dies out and the curves leave the line downwards.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Preconditioned gradient descent from Spectral-init, r > r*; ‖Δ‖_op = 1 by choice of units.

    The linear model's start has superfluous directions added.
    """

    trials: int = 4
    """Number of trials; trial i has seed i."""
    d: int = 50
    """Input and output width, d = k."""
    true_rank: int = 2
    """r*."""
    rank: int = 4
    """r."""
    relative_shift: float = 0.1
    """c, the largest ‖Δ_m‖/‖w_m‖ of the ReLU model."""
    condition_number: float = 3.0
    """κ."""
    samples: int = 3200
    """N of the linear model; the ReLU model is the one at N = ∞."""
    learning_rate: float = 0.5
    """η of the ReLU model; the linear one takes half, which moves it as far."""
    superfluous: float = 1e-2
    """Singular values r* + 1, …, r of the linear model's start."""
    dampings: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    """Fixed λ."""
    factors: tuple[float, ...] = (2.0, 0.5)
    """λ_t/ρ_t of the adaptive damping."""
    steps: int = 2000
    """How many steps."""
    records: int = 150
    """About how many points of each curve to store, evenly spaced in ln t."""


# Sums over N; the damped inverses of directions of size 1e-2 magnify rounding 1e2 times.
TOLERANCE = agreement.tolerance(size=3200, growth=1e2)

SMOKE = Config(
    trials=2, d=16, samples=300, dampings=(1e-1, 1e-2), factors=(1.0,), steps=100, records=40
)


def run(config: Config, progress: Progress) -> Data:
    """Error curves (t, run, seed), relative to ‖Δ‖_F, of both models; steps with singular Grams."""
    data: Data = {"steps": plotting.thinned(config.steps + 1, config.records)}
    kinds = ("fixed", "none", *(f"adaptive {i}" for i in range(len(config.factors))))
    for i, model in enumerate(MODELS):
        problem = instances(config, model)
        size = np.linalg.norm(problem.shift.dense().cpu().numpy(), axis=(-2, -1))
        data[f"{model}.size"] = size
        start = filled(config, problem) if isinstance(problem, lt.LinearProblem) else None
        for j, kind in enumerate(kinds):
            changes: dict[str, Any] = {}
            method = lt.METHODS[METHOD]()
            if kind == "fixed":
                changes["damping"] = list(config.dampings)
            elif kind != "none":
                method = lt.METHODS[METHOD](adaptive=config.factors[j - 2])
            run = lt.simulate(
                problem,
                method,
                rank=config.rank,
                learning_rate=config.learning_rate / STRENGTH[model],
                steps=config.steps,
                seeds=range(config.trials),
                initial=start,
                record=("error",),
                progress=part(progress, i * len(kinds) + j, len(MODELS) * len(kinds), config.steps),
                **changes,
            )
            error = run["error"].cpu().numpy()[data["steps"]]
            data[f"{model}.{kind}"] = error / size
            if kind == "none":
                data[f"{model}.singular_steps"] = np.array([s.count for s in run.status])
    return data


def comparable(data: Data) -> Data:
    """Without the undamped runs: inverses of vanishing directions magnify rounding by 1/√eps."""
    undamped = {f"{model}.{kind}" for model in MODELS for kind in ("none", "singular_steps")}
    return {name: array for name, array in data.items() if name not in undamped}


def instances(config: Config, model: str) -> lt.ReLUPopulation | lt.LinearProblem:
    """The ReLU model at N = ∞ or the linear one on N samples, with the same spectrum."""
    common: dict[str, Any] = {
        "d": config.d,
        "k": config.d,
        "true_rank": config.true_rank,
        "seeds": range(config.trials),
        **config.where,
    }
    if model == "linear":
        spectrum = np.geomspace(1, 1 / config.condition_number, config.true_rank).tolist()
        return lt.sample_linear(**common, samples=config.samples, spectrum=spectrum)
    return lt.sample_relu_population(
        **common, relative_shift=config.relative_shift, condition_number=config.condition_number
    ).with_shift_norm()


def filled(config: Config, problem: lt.LinearProblem) -> lt.Factors:
    """Spectral-init with directions r* + 1, …, r in random frames, balanced."""
    seeds = range(config.trials)
    A, B = lt.METHODS["lora-one"]().init(problem, config.true_rank, tuple(seeds)).trainable
    extra = lt.sample_linear(
        d=config.d,
        k=config.d,
        true_rank=config.rank - config.true_rank,
        samples=1,
        seeds=range(config.trials, 2 * config.trials),
        **config.where,
    ).shift  # singular values 1
    size = config.superfluous**0.5
    return lt.Factors(torch.cat([A, size * extra.A], -1), torch.cat([B, size * extra.B], -2))


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """One panel a model."""
    figure, axes = plotting.figure(1, 2, height=3.4, sharey=True)
    steps = data["steps"]
    shades = plotting.sequence(len(config.dampings))
    reds = (plotting.VERMILLION, plotting.ORANGE)
    dashes = ("-", plotting.SHORT)
    adaptive = [
        {"color": reds[i % 2], "linestyle": dashes[i // 2 % 2]} for i in range(len(config.factors))
    ]
    for ax, model in zip(axes[0], MODELS, strict=True):
        late = steps[steps >= 5]
        for i, damping in enumerate(config.dampings):
            plotting.band(ax, steps, data[f"{model}.fixed"][:, i], color=shades[i])
            # The law knows the step only as the product of η and the size of the gradient.
            law = predict.relu.sublinear(
                config.learning_rate,
                damping=damping,
                rank=config.rank,
                true_rank=config.true_rank,
                t=1,
            )
            level = law / data[f"{model}.size"].mean() / late
            ax.plot(late, level, color=plotting.THEORY, linestyle="--", linewidth=0.9)
        for i, style in enumerate(adaptive):
            plotting.band(ax, steps, _clipped(data[f"{model}.adaptive {i}"]), **style)
        line = {"color": "black", "linestyle": ":", "linewidth": 1.6}
        plotting.band(ax, steps, _clipped(data[f"{model}.none"]), **line)
        rate = predict.relu.population_rate(config.learning_rate)
        ax.plot(late, data[f"{model}.none"][0].mean() * rate**late, color="#a0a0a0", linewidth=0.9)
        ax.set(yscale="log", ylim=(1e-16, 2))
        plotting.log_time(ax)
    axes[0, 0].set_ylabel(r"$\Vert A_tB_t-\Delta\Vert_F\,/\,\Vert\Delta\Vert_F$")
    titles = (r"ReLU, $N=\infty$", f"linear, $N={config.samples}$")
    plotting.label_panels(list(axes[0]), titles)
    handles = [
        plotting.key(rf"$\lambda={value:g}$", color=shades[i])
        for i, value in enumerate(config.dampings)
    ]
    handles += [
        plotting.key(rf"$\lambda_t={value:g}\,\rho_t$", **style)
        for value, style in zip(config.factors, adaptive, strict=True)
    ]
    handles += [
        plotting.key("undamped", color="black", linestyle=":", linewidth=1.6),
        plotting.key(
            r"$\sqrt{r-r^*}\,\lambda/(\eta t)$",
            color=plotting.THEORY,
            linestyle="--",
            linewidth=0.9,
        ),
        plotting.key(r"$(1-\eta/2)^t$", color="#a0a0a0", linewidth=0.9),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return {"fig_damping": figure}


def _clipped(error: np.ndarray) -> np.ndarray:
    return np.clip(error, 1e-17, None)
