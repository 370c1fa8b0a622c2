"""Convergence below, at and above the true rank: who reaches a global minimiser, and the floors."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.core import validate
from loraone_theory.experiment import Data, Progress, part
from loraone_theory.methods import Method

SPECTRUM = tuple(float(x) for x in np.linspace(1, 0.25, 8))


# Expect: every curve lands on the dashed floor of its method. For r >= r* LoRA-One, LoRA and full
# fine-tuning fall to rounding, LoRA-GA and LoRA-SB stay above. For r < r* the offset acts as
# extra rank and LoRA-GA's floor lies below LoRA-One's over a range of its scale (panel d).
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Rank-deficient, exact and rank-excess training of every method."""

    trials: int = 8
    """Number of trials; trial i has seed i."""
    d: int = 100
    """Input and output width, d = k."""
    samples: int = 1600
    """N."""
    spectrum: tuple[float, ...] = experiment.knob(SPECTRUM, repeats=True)
    """Singular values λ* of the shift; their number is r*."""
    ranks: tuple[int, ...] = (4, 8, 16)
    """r below, at and above r*."""
    learning_rate: float = 0.1
    """η of gradient descent, for every method."""
    preconditioned_learning_rate: float = 0.5
    """η of preconditioned gradient descent, undamped."""
    damping: float = experiment.knob(0.0, least=0)
    """λ of preconditioned gradient descent."""
    methods: tuple[str, ...] = experiment.knob((), empty=True)
    """Names of methods, all trained by preconditioned gradient descent, in place of the usual."""
    quantity: Literal["loss", "risk", "error"] = "loss"
    """What is drawn against the steps; floors are predicted of the loss."""
    steps: int = 2000
    """How many steps."""
    init_std: float = 1e-2
    """α of LoRA-init."""
    lora_ga_gammas: tuple[float, ...] = (4.0, 16.0)
    """γ of LoRA-GA, whose scale is ζ² = √k/γ."""
    gamma_grid: tuple[float, ...] = tuple(float(x) for x in np.geomspace(0.1, 1000, 25))
    """γ of the panel of floors."""
    records: int = 150
    """About how many points of each curve to store, evenly spaced in ln t."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.choices("methods", self.methods, lt.METHODS)


# Sums over d; a run grows from init_std = 1e-2, which magnifies rounding 1e2 times.
TOLERANCE = agreement.tolerance(size=100, growth=1e2)

# The reference notebook's own: d = k = 100, N = 1600, early LoRA-One and LoRA-GA with γ = 4, by
# preconditioned gradient descent with η = 0.5 and λ = 1e-3.
PRESETS = {
    "notebook": Config(
        methods=("lora-one-early", "lora-ga"),
        damping=1e-3,
        preconditioned_learning_rate=0.5,
        lora_ga_gammas=(4.0, 1.0),
    )
}

SMOKE = Config(
    trials=2,
    d=24,
    samples=400,
    spectrum=(1.0, 0.7, 0.4, 0.25),
    ranks=(2, 4, 8),
    steps=150,
    gamma_grid=(1.0, 10.0, 100.0),
)


def preconditioned(name: str, config: Config) -> Method:
    """The method by preconditioned gradient descent; those of LoRA-GA's kind with the first γ."""
    takes_gamma = name in ("lora-ga", "lora-one-early")
    options = {"gamma": config.lora_ga_gammas[0]} if takes_gamma else {}
    return lt.METHODS[name](**options).trained_by("preconditioned", name=name)


def contestants(config: Config) -> dict[str, tuple[Method, float]]:
    """Label -> the method and its learning rate."""
    eta = config.learning_rate
    if config.methods:
        rate = config.preconditioned_learning_rate
        return {name: (preconditioned(name, config), rate) for name in config.methods}
    methods = {
        "full": (lt.METHODS["full"](), eta),
        "lora": (lt.METHODS["lora"](init_std=config.init_std), eta),
    }
    for gamma in config.lora_ga_gammas:
        methods[f"lora-ga γ={gamma:g}"] = (lt.METHODS["lora-ga"](gamma=gamma), eta)
    methods["lora-sb"] = (lt.METHODS["lora-sb"](), eta)
    methods["lora-one"] = (lt.METHODS["lora-one"](), eta)
    name = "lora-one-preconditioned"
    methods[name] = (lt.METHODS[name](), config.preconditioned_learning_rate)
    return methods


def run(config: Config, progress: Progress) -> Data:
    """Curves (ranks, methods, t, seeds), their floors, and LoRA-GA's floor against γ."""
    seeds = range(config.trials)
    problem = lt.sample_linear(
        d=config.d,
        k=config.d,
        true_rank=len(config.spectrum),
        samples=config.samples,
        spectrum=config.spectrum,
        seeds=seeds,
        **config.where,
    )
    methods = contestants(config)
    stages = len(config.ranks) * len(methods)
    steps = plotting.thinned(config.steps + 1, config.records)
    curves, floors, one, swept = [], [], [], []
    for i, rank in enumerate(config.ranks):
        for j, (method, learning_rate) in enumerate(methods.values()):
            run = lt.simulate(
                problem,
                method,
                rank=rank,
                learning_rate=learning_rate,
                damping=config.damping if method.facts.inverts else 0.0,
                steps=config.steps,
                seeds=seeds,
                record=(config.quantity,),
                progress=part(progress, i * len(methods) + j, stages, config.steps),
            )
            curves.append(run[config.quantity].cpu().numpy()[steps])
            floors.append(predict.floor(problem, method, rank=rank, seeds=seeds).cpu().numpy())
        one.append(predict.floor(problem, "lora-one", rank=rank, seeds=seeds).cpu().numpy())
        for gamma in config.gamma_grid:
            method = lt.METHODS["lora-ga"](gamma=gamma)
            swept.append(predict.floor(problem, method, rank=rank, seeds=seeds).cpu().numpy())
    by_rank = (len(config.ranks), -1)
    return {
        "steps": steps,
        config.quantity: np.stack(curves).reshape(*by_rank, len(steps), config.trials),
        "floor": np.stack(floors).reshape(*by_rank, config.trials),
        "lora_one_floor": np.stack(one),
        "lora_ga_floor": np.stack(swept).reshape(*by_rank, config.trials),
    }


LABELS = {"loss": "training loss", "risk": "risk", "error": r"$\Vert E_t\Vert_F$"}
LEAST = 1e-20  # nothing below this is drawn
DASHES = ("-", "--", ":")


def _style(label: str, config: Config) -> dict[str, Any]:
    name, _, gamma = label.partition(" γ=")
    style = plotting.method_style(name)
    if gamma and float(gamma) != config.lora_ga_gammas[0]:
        style["linestyle"] = plotting.DASHDOT
    if gamma:
        style["label"] = rf"LoRA-GA, $\gamma={gamma}$"
    if name == "lora-sb":  # close to LoRA-GA's loss, so that one must show through the other
        style["linestyle"] = plotting.SHORT
    return style


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Three regimes and the floors against LoRA-GA's scale."""
    figure, axes = plotting.figure(2, 2, height=5.6)
    true_rank = len(config.spectrum)
    for i, ax in enumerate(axes.flat[: len(config.ranks)]):
        _regime(ax, data, config, i)
    _floors(axes[1, 1], data, config)
    relation = ["<" if r < true_rank else "=" if r == true_rank else ">" for r in config.ranks]
    titles = [f"$r={r}{s}r^*$" for r, s in zip(config.ranks, relation, strict=True)]
    plotting.label_panels(list(axes.flat), [*titles, "floors against LoRA-GA's scale"])
    handles = [plotting.key(**_style(label, config)) for label in contestants(config)]
    if config.quantity == "loss":
        handles.append(plotting.key("floor", color=plotting.THEORY, linestyle="--", linewidth=0.8))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return {"fig_rank_regimes": figure}


def _regime(ax: plotting.Axes, data: Data, config: Config, i: int) -> None:
    positive, of_loss = [], config.quantity == "loss"
    for j, label in enumerate(contestants(config)):
        style = _style(label, config)
        curve = np.clip(data[config.quantity][i, j], LEAST / 100, None)
        plotting.band(ax, data["steps"], curve, **{**style, "label": None})
        floor = data["floor"][i, j].mean()
        if of_loss and floor > LEAST:
            positive.append(floor)
            ax.axhline(floor, color=style["color"], linestyle="--", linewidth=0.8)
    trained = [j for j, label in enumerate(contestants(config)) if label != "full"]
    stuck = of_loss and bool((data["floor"][i, trained].mean(-1) > LEAST).all())
    ax.set(
        ylabel=LABELS[config.quantity],
        yscale="log",
        ylim=(min(positive) / 2 if stuck else LEAST, 10),
    )
    plotting.log_time(ax)


def _floors(ax: plotting.Axes, data: Data, config: Config) -> None:
    scale = config.d**0.5 / np.array(config.gamma_grid)
    reached = []
    for i, rank in enumerate(config.ranks):
        floor = data["lora_ga_floor"][i].mean(-1)
        dashes = DASHES[i % len(DASHES)]
        ax.plot(scale, floor, color=plotting.GREEN, linestyle=dashes, label=f"LoRA-GA, $r={rank}$")
        one = data["lora_one_floor"][i].mean()
        if one > LEAST:
            label = f"LoRA-One, $r={rank}$"
            ax.axhline(one, color=plotting.BLUE, linestyle=dashes, label=label)
        else:
            reached.append(str(rank))
    for gamma in config.lora_ga_gammas:
        x = config.d**0.5 / gamma
        ax.axvline(x, color=plotting.THEORY, linewidth=0.6, linestyle=":")
        ax.annotate(
            rf"$\gamma={gamma:g}$",
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -1) if gamma == min(config.lora_ga_gammas) else (-2, -1),
            textcoords="offset points",
            ha="left" if gamma == min(config.lora_ga_gammas) else "right",
            va="top",
            fontsize=7,
        )
    ax.set(
        xlabel=r"LoRA-GA's scale $\zeta^2=\sqrt{k}/\gamma$",
        ylabel="least reachable loss",
        xscale="log",
        yscale="log",
        ylim=(None, 1.5),
    )
    title = f"LoRA-One: 0 at $r={', '.join(reached)}$" if reached else None
    ax.legend(
        title=title, title_fontsize=8, loc="lower right", frameon=True, framealpha=1, edgecolor="w"
    )
