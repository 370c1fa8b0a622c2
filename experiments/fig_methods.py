"""Every method over its predicted floor and rate, below, at and above the true rank."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.experiment import Data, Progress
from loraone_theory.predict.compare import Row, compare

# Methods that are drawn where none are named.
SHOWN = (
    "full",
    "full-adamw",
    "lora",
    "lora-momentum",
    "lora-adamw",
    "rslora",
    "lora+",
    "lora+-adamw",
    "p-lora",
    "p-lora-adamw",
    "lora-pro",
    "lora-pro-adamw",
    "adalora",
    "pissa",
    "milora",
    "olora",
    "lora-xs",
    "lora-ga",
    "lora-sb",
    "lora-one",
    "lora-one-preconditioned",
    "lora-one-adamw",
    "lora-one-scaled-adamw",
    "lora-one-released",
    "lora-one-early",
)
# One method of each kind, for the figure that is read at the width of a page.
MAIN = (
    "full",
    "lora",
    "p-lora",
    "lora-pro",
    "pissa",
    "lora-ga",
    "lora-sb",
    "lora-one",
    "lora-one-preconditioned",
)


# Expect: every method trained by gradient descent or a relative of it lands on its own floor
# along the dashed line of its predicted rate, each at its own best step. Methods that keep W_f = W
# and train both factors reach 0 for r >= r*; those with an offset (PiSSA, OLoRA, MiLoRA, LoRA-GA)
# and frozen frames (LoRA-SB, LoRA-XS) stop above it at every r, except the early LoRA-One, whose
# offset has the row space of Δ. A large step unbalances the factors of LoRA-GA and moves its rate
# a little. Adam's kind has no rate: at a fixed η some runs return from the floor.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """All methods at three ranks, at their own best step sizes."""

    trials: int = 2
    """Number of trials; trial i has seed i. Grids are tuned on the same seeds."""
    d: int = 40
    """Input and output width, d = k."""
    samples: int = 640
    """N."""
    spectrum: tuple[float, ...] = experiment.knob((1.0, 0.9, 0.6, 0.5), repeats=True)
    """Singular values λ* of the shift; their number is r*."""
    ranks: tuple[int, ...] = (2, 4, 8)
    """r below, at and above r*."""
    quantity: Literal["loss", "risk", "error"] = "loss"
    """What is drawn over the steps; floors are those of the loss."""
    steps: int = 500
    """How many steps."""
    tune: bool = False
    """Take the grid also where the best step size is predicted."""
    methods: tuple[str, ...] = SHOWN
    """Which methods; any of `loraone list` but the flows."""
    records: int = 150
    """About how many points of each curve to store, evenly spaced in ln t."""


# Sums over d; AdamW divides small gradients by their size: growth 1e4.
TOLERANCE = agreement.tolerance(size=40, growth=1e4)

SMOKE = Config(
    trials=1,
    d=16,
    samples=240,
    spectrum=(1.0, 0.6),
    ranks=(1, 2, 3),
    steps=60,
    methods=("full", "lora", "lora-adamw", "p-lora", "lora-ga", "lora-sb", "lora-one"),
)


CURVES: dict[str, Callable[[Row], np.ndarray]] = {
    "loss": lambda row: row.loss,
    "risk": lambda row: row.error**2 / 2,  # of isotropic inputs
    "error": lambda row: row.error,
}
LABELS = {
    "loss": "training loss",
    "risk": r"risk $\frac{1}{2}\Vert E_t\Vert_F^2$",
    "error": r"error $\Vert E_t\Vert_F$",
}


def run(config: Config, progress: Progress) -> Data:
    """Curves (rank, method, t, seed), floors and rates (rank, method, seed), step sizes."""
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
    thin = plotting.thinned(config.steps + 1, config.records)
    stages, rows = len(config.ranks) * len(config.methods), []
    for i, rank in enumerate(config.ranks):

        def report(name: str, done: int, before: int = i * len(config.methods)) -> None:
            progress((before + config.methods.index(name) + done / config.steps) / stages)

        rows += compare(
            problem,
            rank=rank,
            steps=config.steps,
            seeds=seeds,
            names=config.methods,
            tune=config.tune,
            report=report,
        ).rows
    shape = (len(config.ranks), len(config.methods))

    def gathered(parts: list[np.ndarray]) -> np.ndarray:
        return np.stack(parts).reshape(*shape, *np.shape(parts[0]))

    return {
        "steps": thin,
        config.quantity: gathered([CURVES[config.quantity](row)[thin] for row in rows]),
        "floor": gathered([row.floor for row in rows]),
        "rate": gathered([row.predicted_rate for row in rows]),
        "learning_rate": gathered([np.array(row.learning_rate) for row in rows]),
        "predicted": gathered([np.array(row.chosen_by == "prediction") for row in rows]),
    }


LEAST = 1e-14  # nothing below this is drawn
ANCHOR = 1e-2  # the predicted rate is drawn from where the distance to the floor is this


def predicted_tail(
    steps: np.ndarray, excess: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and e_s·rate^{2(t−s)} from the s where √(e_s/e_0) first is `ANCHOR`.

    Args:
        steps: (T,).
        excess: (T,), e_t = L_t − floor of one run.
        rate: of √e; nothing is drawn where it is not known.
    """
    near = np.nonzero(excess <= ANCHOR**2 * excess[0])[0]
    if not len(near) or not np.isfinite(rate):
        return steps[:0].astype(float), excess[:0]
    start = near[0]
    t = np.geomspace(max(steps[start], 1), steps[-1], 60)
    return t, excess[start] * rate ** (2 * (t - steps[start]))


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """One panel per method, one colour per rank, predictions in grey; the first seed."""
    main = tuple(name for name in MAIN if name in config.methods)
    return {
        "fig_methods": _panels(data, config, main, columns=3, size=8),
        "fig_methods_all": _panels(data, config, config.methods, columns=5, size=6),
    }


def _panels(
    data: Data, config: Config, names: tuple[str, ...], *, columns: int, size: int
) -> plotting.Figure:
    count, rows = len(names), -(-len(names) // columns)
    width = plotting.WIDTH if columns == 3 else 7.2
    figure, axes = plotting.figure(
        rows, columns, height=0.9 + 1.3 * rows, width=width, sharex=True, sharey=True
    )
    for j, ax in enumerate(axes.flat):
        if j >= count:
            ax.set_axis_off()
            continue
        _panel(ax, data, config, config.methods.index(names[j]), strength=1.0 if size < 8 else 1.3)
        label = plotting.method_style(names[j])["label"]
        label = label.replace("scaled", "sc.").replace("preconditioned", "precond.")
        ax.set_title(label, fontsize=size + 1)
        ax.set(yscale="log", ylim=(LEAST, 30), yticks=(1e-12, 1e-8, 1e-4, 1))
        plotting.log_time(ax)
        ax.set(xticks=(0, 1, 10, 100))
        if j + columns < count:
            ax.set(xlabel="")
        ax.tick_params(labelsize=size)
    figure.supylabel(LABELS[config.quantity], fontsize=9)
    colours = plotting.sequence(len(config.ranks))
    true_rank = len(config.spectrum)
    relation = ["<" if r < true_rank else "=" if r == true_rank else ">" for r in config.ranks]
    handles = [
        plotting.key(f"$r={r}{sign}r^*$", color=colour, linewidth=2)
        for r, sign, colour in zip(config.ranks, relation, colours, strict=True)
    ]
    grey = {"color": plotting.THEORY}
    if config.quantity == "loss":
        handles += [
            plotting.key("loss", linewidth=0.8, **grey),
            plotting.key("loss above the predicted floor", linewidth=2.4, **grey),
            plotting.key("predicted floor", linestyle=":", linewidth=0.9, **grey),
        ]
    handles.append(plotting.key("predicted rate", linestyle="--", linewidth=0.9, **grey))
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if columns > 3 else 3)
    return figure


def _panel(ax: plotting.Axes, data: Data, config: Config, j: int, strength: float) -> None:
    steps = data["steps"]
    for i, colour in enumerate(plotting.sequence(len(config.ranks))):
        if not np.isfinite(data["learning_rate"][i, j]):
            continue
        curve, floor = data[config.quantity][i, j, :, 0], data["floor"][i, j, 0]
        of_loss = config.quantity == "loss"
        excess = np.clip(curve - floor if of_loss else curve, LEAST / 100, None)
        width = 3.4 - 1.1 * i  # where ranks coincide, each still shows
        ax.plot(steps, excess, color=colour, linewidth=width, alpha=0.5)
        grey = {"color": plotting.THEORY, "linewidth": 0.8 * strength, "zorder": 3}
        if of_loss and floor > 0:
            ax.plot(steps, curve, color=colour, linewidth=0.8 * strength)
            ax.plot([0, steps[-1]], [floor] * 2, linestyle=":", **grey)
        # Rates are of what goes to zero: the loss above its floor, the error where that is zero.
        rate = data["rate"][i, j, 0] if of_loss or floor == 0 else np.nan
        power = 2 if config.quantity == "error" else 1
        t, tail = predicted_tail(steps, excess**power, rate)
        ax.plot(t, np.clip(tail ** (1 / power), LEAST / 100, None), linestyle="--", **grey)
