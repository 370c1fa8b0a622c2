"""Alignment of LoRA's factors with the one-step gradient: dip, drift and plateau; size of α."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from typing import Literal

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress, part


# Expect: the alignment first falls along the dotted linearised curve, the lower the smaller α²,
# then turns and settles on the predicted plateau (about 0.27) while the risk falls on. From large
# α² it never falls below the plateau. In the second figure the least alignment falls with α² and
# is reached later, and is worse, for larger d.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Over-ranked LoRA by gradient descent from small initialisations."""

    d: int = 100
    """Input and output width, d = k."""
    samples_per_width: int = 16
    """N/d."""
    rank: int = 8
    """r, the rank of the factors."""
    true_rank: int = 4
    """r*, the rank of the shift; its singular values are all 1 unless `spectrum` gives them."""
    spectrum: tuple[float, ...] = experiment.knob((), empty=True, repeats=True)
    """Singular values λ* of the shift, in place of r* ones."""
    learning_rate: float = 1 / 64
    """η."""
    quantity: Literal["risk", "loss", "error"] = "risk"
    """What is drawn beside the alignment."""
    steps: int = 1500
    """How many steps."""
    variances: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
    """α², the variance of A0's entries."""
    widths: tuple[int, ...] = (50, 100, 200, 400)
    """Widths d = k of the second figure."""
    stored_every: int = 10
    """The curves are stored once in so many steps; the minima are taken over all steps."""


# The fast directions of a factor outgrow the slow ones by less than 1e2 before they settle.
TOLERANCE = agreement.tolerance(size=400, growth=1e2)

# The reference notebook's own: singular values of size 19, η = 1/(16σ₁); d = k = 100, N = 1600.
PRESETS = {"notebook": Config(spectrum=(19.0,) * 4, learning_rate=1 / (16 * 19.0))}

SMOKE = Config(trials=2, d=30, steps=200, variances=(1e-1, 1e-4), widths=(20, 30))


LABELS = {
    "risk": r"risk $\frac{1}{2}\Vert A_tB_t-\Delta\Vert_F^2$",
    "loss": "training loss",
    "error": r"$\Vert A_tB_t-\Delta\Vert_F$",
}


def run(config: Config, progress: Progress) -> Data:
    """Curves at width d, and the best alignment at every width."""
    widths = tuple(dict.fromkeys((config.d, *config.widths)))
    shape = (len(config.widths), len(config.variances), config.trials)
    best, best_step = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    plateaus = np.full((len(config.widths), config.trials), np.nan)
    data: Data = {}
    for i, d in enumerate(widths):
        problem = lt.sample_linear(
            d=d,
            k=d,
            true_rank=len(config.spectrum) or config.true_rank,
            spectrum=config.spectrum or None,
            samples=config.samples_per_width * d,
            seeds=range(config.trials),
            **config.where,
        )
        run = lt.simulate(
            problem,
            "lora",
            rank=config.rank,
            learning_rate=config.learning_rate,
            steps=config.steps,
            seeds=range(config.trials),
            init_std=[variance**0.5 for variance in config.variances],
            record=(config.quantity, "left_alignment") if d == config.d else ("left_alignment",),
            progress=part(progress, i, len(widths), config.steps),
        )
        alignment = run["left_alignment"].cpu().numpy()
        if d in config.widths:
            where = config.widths.index(d)
            best[where] = np.nanmin(alignment, axis=0)
            best_step[where] = np.nanargmin(alignment, axis=0)
            plateaus[where] = predict.plateau(problem).cpu().numpy()
        if d == config.d:
            kept = run.steps[:: config.stored_every]
            smallest = len(config.variances) - 1
            start = lt.Factors(run.initial.A[smallest], run.initial.B[smallest])
            linear = predict.linearised_alignment(
                problem, start, config.learning_rate, kept.tolist()
            )
            data = {
                "steps": kept,
                config.quantity: run[config.quantity].cpu().numpy()[kept],
                "left_alignment": alignment[kept],
                "plateau": predict.plateau(problem).cpu().numpy(),
                "linearised_alignment": linear.cpu().numpy(),
            }
    return {**data, "best_alignment": best, "best_step": best_step, "plateaus": plateaus}


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Curves against t; minima against α²."""
    return {"fig_alignment": _curves(data, config), "fig_alignment_scaling": _scaling(data, config)}


def _curves(data: Data, config: Config) -> plotting.Figure:
    figure, axes = plotting.figure(1, 2, height=3.1)
    left, right = axes[0]
    steps = data["steps"]
    for i, colour in enumerate(plotting.sequence(len(config.variances))):
        label = rf"$\alpha^2 = {plotting.power_of_ten(config.variances[i])}$"
        plotting.band(left, steps, data["left_alignment"][:, i], color=colour, label=label)
        plotting.band(right, steps, data[config.quantity][:, i], color=colour)
    linear = data["linearised_alignment"].mean(-1)
    left.plot(steps, linear, color=plotting.THEORY, linestyle=":", label="linearised (any α)")
    plateau = data["plateau"].mean()
    left.axhline(
        plateau, color=plotting.THEORY, linestyle="--", linewidth=1, label="predicted plateau"
    )
    left.set(
        xlabel="step $t$",
        ylabel=r"$\Vert U_{r^*,\perp}(G)^\top U_{r^*}(A_t)\Vert_{op}$",
        yscale="log",
        ylim=(min(2e-2, float(np.nanmin(data["left_alignment"])) / 1.3), 1.3),
    )
    right.set(
        xlabel="step $t$",
        ylabel=LABELS[config.quantity],
        yscale="log",
    )
    plotting.label_panels((left, right), ("alignment", config.quantity))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _scaling(data: Data, config: Config) -> plotting.Figure:
    figure, axes = plotting.figure(1, 2, height=2.9)
    variances = np.array(config.variances)
    for i, colour in enumerate(plotting.sequence(len(config.widths))):
        line = {"color": colour, "marker": plotting.MARKERS[i]}
        label = f"$d = {config.widths[i]}$"
        plotting.spread(axes[0, 0], variances, data["best_alignment"][i], label=label, **line)
        axes[0, 0].axhline(data["plateaus"][i].mean(), color=colour, linestyle="--", linewidth=0.8)
        # Without a dip below the plateau the step of the least value has no meaning.
        dips = (data["best_alignment"][i] < data["plateaus"][i]).all(-1)
        plotting.spread(axes[0, 1], variances[dips], data["best_step"][i][dips], **line)
    axes[0, 0].set(yscale="log", ylabel="least alignment over $t$")
    axes[0, 1].set(ylabel="step of the least alignment")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel=r"$\alpha^2$")
    plotting.label_panels(axes[0], ("best alignment", "when, if below the plateau"))
    handles, _ = axes[0, 0].get_legend_handles_labels()
    handles.append(plotting.key("plateau", color=plotting.THEORY, linestyle="--", linewidth=0.8))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure
