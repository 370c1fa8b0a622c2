"""ReLU model below, at and above the true rank: who reaches the shift, and the floors."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.core import validate
from loraone_theory.experiment import Data, Progress, part
from loraone_theory.methods import Method

# Trained by gradient descent; by it with a step that suits factors made from W, smaller by
# ‖W‖_op to this power; by preconditioned or projected steps.
PLAIN = ("full", "lora", "lora+", "milora", "lora-ga", "lora-sb", "lora-one")
FROM_WEIGHT = {"pissa": 1, "olora": 2, "lora-xs": 2}
SCALED = ("p-lora", "lora-pro", "lora-one-preconditioned")
KNOWN = (*PLAIN, *FROM_WEIGHT, *SCALED)


# Expect: every curve ends on its dashed floor. For r < r* that of the methods without an offset is
# the distance of Δ from rank r. An offset changes the target to Δ + offset: LoRA-GA's, made from G,
# lowers the floor for r < r* and keeps it above 0 from there on; those made from W leave it near
# ‖Δ‖_F, as do LoRA-XS's frozen frames. For r > r* gradient descent slows down, preconditioning not.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """The ReLU model at N = ∞; ‖Δ‖_op = 1 by choice of units."""

    trials: int = 4
    """Number of trials; trial i has seed i."""
    d: int = 50
    """Input and output width, d = k."""
    true_rank: int = 4
    """r*."""
    condition_number: float = 3.0
    """κ; the singular values are geometric from 1 to 1/κ."""
    relative_shift: float = 0.1
    """c, the largest ‖Δ_m‖/‖w_m‖."""
    ranks: tuple[int, ...] = (2, 4, 8)
    """r below, at and above r*."""
    learning_rate: float = 0.2
    """η of gradient descent."""
    weight_learning_rate: float = 1.0
    """η‖W‖_op of PiSSA, η‖W‖_op² of OLoRA and LoRA-XS, whose factors are made from W."""
    scaled_learning_rate: float = 0.5
    """η of preconditioned and projected steps, undamped."""
    init_std: float = 1e-2
    """α of LoRA-init."""
    methods: tuple[str, ...] = KNOWN
    """Which methods; the default is all that have a step size here."""
    quantity: Literal["error", "risk"] = "error"
    """What is drawn, relative to its size where nothing is learned; floors are of the error."""
    steps: int = 1000
    """How many steps."""
    records: int = 120
    """About how many points of each curve to store, evenly spaced in ln t."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.choices("methods", self.methods, KNOWN)


# Sums over d; a run grows from init_std = 1e-2, which magnifies rounding 1e2 times.
TOLERANCE = agreement.tolerance(size=50, growth=1e2)

SMOKE = Config(trials=2, d=16, true_rank=2, ranks=(1, 2, 4), steps=20, records=20)


def comparable(data: Data) -> Data:
    """Errors no lower than where the rounding of d = 50 products, d·eps, is TOLERANCE of them.

    Without the scaled methods at the largest rank, which exceeds r*: inverses of vanishing
    directions magnify rounding by 1/√eps.
    """
    error = np.maximum(data["error"], 50 * np.finfo(np.float64).eps / TOLERANCE)
    error[-1, -len(SCALED) :] = np.nan
    return data | {"error": error}


def contestants(config: Config, weight: float = 1.0) -> dict[str, tuple[Method, float]]:
    """Name -> the method and its learning rate, where ‖W‖_op is `weight`."""

    def make(name: str) -> Method:
        factory: Callable[..., Method] = lt.METHODS[name]
        takes_std = name in ("lora", "lora+", "p-lora", "lora-pro")
        return factory(init_std=config.init_std) if takes_std else factory()

    rates = dict.fromkeys(PLAIN, config.learning_rate)
    rates |= {n: config.weight_learning_rate / weight**p for n, p in FROM_WEIGHT.items()}
    rates |= dict.fromkeys(SCALED, config.scaled_learning_rate)
    return {name: (make(name), rates[name]) for name in config.methods}


def run(config: Config, progress: Progress) -> Data:
    """‖E_t‖_F/‖Δ‖_F, or relative risks (ranks, methods, t, seeds), and the floors of the error."""
    seeds = range(config.trials)
    problem = lt.sample_relu_population(
        d=config.d,
        k=config.d,
        true_rank=config.true_rank,
        relative_shift=config.relative_shift,
        condition_number=config.condition_number,
        seeds=seeds,
        **config.where,
    ).with_shift_norm()
    size = np.linalg.norm(problem.shift.dense().cpu().numpy(), axis=(-2, -1))
    nothing = lt.Factors(torch.zeros_like(problem.shift.A), problem.shift.B)
    units = {"error": size, "risk": problem.risk(nothing).cpu().numpy()}
    steps = plotting.thinned(config.steps + 1, config.records)
    weight = float(np.linalg.norm(problem.pretrained.cpu().numpy(), 2, axis=(-2, -1)).max())
    methods = contestants(config, weight)
    curves, floors = [], []
    for i, rank in enumerate(config.ranks):
        for j, (method, learning_rate) in enumerate(methods.values()):
            run = lt.simulate(
                problem,
                method,
                rank=rank,
                learning_rate=learning_rate,
                steps=config.steps,
                seeds=seeds,
                record=(config.quantity,),
                progress=part(
                    progress, i * len(methods) + j, len(config.ranks) * len(methods), config.steps
                ),
            )
            curves.append(run[config.quantity].cpu().numpy()[steps] / units[config.quantity])
            floors.append(floor(problem, method, rank, seeds) / size)
    by_rank = (len(config.ranks), len(methods))
    return {
        "steps": steps,
        config.quantity: np.stack(curves).reshape(*by_rank, len(steps), config.trials),
        "floor": np.stack(floors).reshape(*by_rank, config.trials),
    }


def floor(problem: lt.ReLUPopulation, method: Method, rank: int, seeds: range) -> np.ndarray:
    """The least ‖E‖_F that the method's parametrisation reaches, from its own start.

    Near Δ the ReLU gradient is half that of ½‖E‖_F², so its stationary points are those of the
    linear model at Σ̂ = I up to a part of relative size c/π.
    """
    start = method.init(problem, rank, tuple(seeds))
    linear = lt.LinearProblem.population(shift=problem.shift, pretrained=problem.pretrained)
    same = method.with_init(lambda problem, rank, seeds: start, name="same start")
    loss = predict.floor(linear, same, rank=rank, seeds=tuple(seeds))
    return (2 * loss).sqrt().cpu().numpy()


LEAST = 1e-12  # nothing below this is drawn
LABELS = {
    "error": r"$\Vert E_t\Vert_F\,/\,\Vert\Delta\Vert_F$",
    "risk": "risk, relative to that of nothing learned",
}


def _style(name: str) -> dict[str, Any]:
    style = plotting.method_style(name)
    return {**style, "linewidth": 2.0} if name == "lora-one" else style


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """One panel a regime, and the legend in the last."""
    figure, axes = plotting.figure(2, 2, height=5.4)
    panels = list(axes.flat[: len(config.ranks)])
    names = list(contestants(config))
    for i, ax in enumerate(panels):
        for j, name in enumerate(names):
            style = _style(name)
            curve = np.clip(data[config.quantity][i, j], LEAST / 100, None)
            plotting.band(ax, data["steps"], curve, **{**style, "label": None})
            level = data["floor"][i, j].mean()
            if level > LEAST and config.quantity == "error":
                ax.axhline(level, color=style["color"], linestyle="--", linewidth=0.8)
        short = config.ranks[i] < config.true_rank
        low = 0.2 if config.quantity == "error" else 0.2**2
        ax.set(yscale="log", ylim=(low, 1.3) if short else (LEAST, 10))
        ax.set_ylabel(LABELS[config.quantity])
        plotting.log_time(ax)
    true_rank = config.true_rank
    relation = ["<" if r < true_rank else "=" if r == true_rank else ">" for r in config.ranks]
    titles = [f"$r={r}{s}r^*$" for r, s in zip(config.ranks, relation, strict=True)]
    plotting.label_panels(panels, titles)
    handles = [plotting.key(**_style(name)) for name in names]
    if config.quantity == "error":
        handles.append(plotting.key("floor", color=plotting.THEORY, linestyle="--", linewidth=0.8))
    axes[1, 1].axis("off")
    axes[1, 1].legend(handles=handles, loc="center")
    return {"fig_relu_rank_regimes": figure}
