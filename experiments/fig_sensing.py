"""Risk against steps for four measurement ensembles, with the predicted local rates."""

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
from loraone_theory.predict import RuleName

RULES: tuple[RuleName, ...] = ("gd", "preconditioned")
METHODS = {"gd": "lora-one", "preconditioned": "lora-one-preconditioned"}
TITLES = ("gradient descent", "preconditioned", "rates")
LABELS = {
    "dense": "dense Gaussian",
    "rank-one": "rank-one",
    "single-response": "single-response",
    "completion": "completion",
}
AXES = {
    "risk": r"risk $/\,\frac{1}{2}\Vert\Delta\Vert_F^2$",
    "loss": r"loss, relative to that of $AB=0$",
}
COLOURS = (plotting.BLUE, plotting.VERMILLION, plotting.GREEN, plotting.PURPLE)
# Risks, relative to ½‖Δ‖², between which a slope is measured; the prediction starts at the upper.
WINDOW = (1e-12, 1e-24)


# Expect: after a start that depends on the ensemble every run falls geometrically at the rate that
# the singular values of the tangent map at the solution give (dashed), and measured slopes lie on
# the diagonal or a little below it, where faster modes have not died out yet. At the same m dense
# measurements and completion are the fastest, rank-one and single responses, of heavier tails of
# ⟨a, M⟩, slower; with the preconditioner every ensemble is faster, by up to κ.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Gradient descent from Spectral-init at r = r*, m noiseless measurements."""

    trials: int = 6
    """Number of trials; trial i has seed i."""
    d: int = 40
    """Rows and columns, d = k."""
    rank: int = 2
    """r = r*."""
    condition_number: float = 2.0
    """κ; the singular values are geometric from 1 to 1/κ."""
    ensembles: tuple[str, ...] = ("dense", "rank-one", "single-response", "completion")
    """Completion is without replacement."""
    quantity: Literal["risk", "loss"] = "risk"
    """What is drawn over the steps, relative to its size where nothing is learned."""
    per_freedom: float = 7.0
    """m over the r(d + k − r) degrees of freedom."""
    learning_rate: float = 0.3
    """η of both rules."""
    steps: tuple[int, int] = experiment.knob((640, 340), repeats=True)
    """How many steps of each rule."""
    records: int = 150
    """About how many points of each curve to store."""

    @property
    def measurements(self) -> int:
        """m."""
        return round(self.per_freedom * self.rank * (2 * self.d - self.rank))


# Sums over m = 1092 measurements. A rounding of E is a relative one of the risk at √eps of the
# first one, below which data are compared in absolute terms, times 2/√√eps, about 1e4. Slopes end
# on risks of 1e-24, where E = 1e-12 holds roundings of 1e-16 · √m, but divide by some 200 steps.
TOLERANCE = agreement.tolerance(size=1092, growth=1e4)

SMOKE = Config(trials=2, d=16, rank=1, per_freedom=7.0, steps=(900, 600), records=40)


def instances(config: Config, ensemble: str) -> lt.SensingProblem:
    """One problem per seed, with the same Δ for every ensemble."""
    return lt.sample_sensing(
        ensemble=ensemble,
        d=config.d,
        k=config.d,
        true_rank=config.rank,
        measurements=config.measurements,
        replace=ensemble != "completion",
        condition_number=config.condition_number,
        seeds=range(config.trials),
        **config.where,
    )


def balanced(problem: lt.SensingProblem, rank: int) -> lt.Factors:
    """AB = Δ with AᵀA = BBᵀ, where balanced descent ends."""
    U, S, V = lt.linalg.truncated_svd(problem.shift, rank)
    return lt.Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)


def run(config: Config, progress: Progress) -> Data:
    """Risks (ensemble, t, seed) relative to ½‖Δ‖², or losses, and rates (rule, ensemble, seed)."""
    data: Data = {}
    stages = len(config.ensembles) * len(RULES)
    predicted, measured = [], []
    for j, rule in enumerate(RULES):
        curves = []
        for i, ensemble in enumerate(config.ensembles):
            problem = instances(config, ensemble)
            made = lt.simulate(
                problem,
                METHODS[rule],
                rank=config.rank,
                learning_rate=config.learning_rate,
                steps=config.steps[j],
                record=(config.quantity,),
                progress=part(progress, j * len(config.ensembles) + i, stages, config.steps[j]),
            )
            near = predict.rates(problem, balanced(problem, config.rank), rule=rule)
            predicted.append(near.rate(config.learning_rate).cpu().numpy())
            nothing = lt.Factors(0 * problem.shift.A, problem.shift.B)
            size = 0.5 * (problem.shift.dense() ** 2).sum((-2, -1))
            if config.quantity == "loss":
                size = problem.loss(nothing)
            curve = made[config.quantity].cpu().numpy() / size.cpu().numpy()
            measured.append(slope(curve))
            curves.append(curve)
        kept = even(config, j)
        data[f"{rule}.steps"] = kept
        data[f"{rule}.{config.quantity}"] = np.stack(curves)[:, kept]
    shape = (len(RULES), len(config.ensembles), config.trials)
    data["predicted"] = np.stack(predicted).reshape(shape)
    data["measured"] = np.stack(measured).reshape(shape)
    return data


def even(config: Config, rule: int) -> np.ndarray:
    """Evenly spaced steps."""
    return np.unique(np.linspace(0, config.steps[rule], config.records).round().astype(int))


def slope(risk: np.ndarray) -> np.ndarray:
    """Factor per step of √risk between the two levels of WINDOW; NaN where they are not reached.

    Args:
        risk: (T, seed), relative to that at AB = 0.
    """
    first, last = ((risk <= level).argmax(0) for level in WINDOW)
    reached = (risk[-1] <= WINDOW[1]) & (last > first)
    ends = [np.take_along_axis(risk, at[None], 0)[0] for at in (first, last)]
    ratio = np.where(reached, ends[1] / ends[0], np.nan)
    return ratio ** (0.5 / np.maximum(last - first, 1))


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Curves of each rule with the predicted slopes, and measured against predicted rates."""
    figure, axes = plotting.figure(1, 3, height=3.1)
    for j, (ax, rule) in enumerate(zip(axes[0], RULES, strict=False)):
        t, risk = data[f"{rule}.steps"], data[f"{rule}.{config.quantity}"]
        for i, colour in enumerate(COLOURS[: len(config.ensembles)]):
            curve = np.clip(risk[i], 1e-40, None)
            ax.plot(t, np.median(curve, axis=-1), color=colour)
            low, high = np.quantile(curve, [0.1, 0.9], axis=-1)
            ax.fill_between(t, low, high, color=colour, alpha=0.18, linewidth=0)
            line = continued(t, risk[i], data["predicted"][j, i])
            ax.plot(t, line, color="black", linestyle=(0, (3, 2.2)), linewidth=0.9)
        ax.set(yscale="log", ylim=(1e-26, 3), xlim=(0, t[-1]), xlabel="step $t$")
    axes[0, 0].set_ylabel(AXES[config.quantity])
    ax = axes[0, 2]
    ends = [np.nanmin(data["predicted"]) - 0.01, np.nanmax(data["predicted"]) + 0.01]
    ax.plot(ends, ends, color=plotting.THEORY, linewidth=0.8, linestyle="--")
    for j, marker in enumerate(("o", "^")):
        for i, colour in enumerate(COLOURS[: len(config.ensembles)]):
            look = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3}
            ax.plot(data["predicted"][j, i], data["measured"][j, i], **look, alpha=0.7)
    ax.set(xlabel="predicted rate", ylabel="measured rate", xlim=ends, ylim=ends)
    plotting.label_panels(axes[0], TITLES)
    handles = [
        plotting.key(LABELS[name], color=COLOURS[i]) for i, name in enumerate(config.ensembles)
    ]
    grey = {"color": plotting.THEORY, "linestyle": "none", "markersize": 3.5}
    handles += [
        plotting.key("predicted rate", color="black", linestyle=(0, (3, 2.2)), linewidth=0.9),
        plotting.key("(c) gradient descent", marker="o", **grey),
        plotting.key("(c) preconditioned", marker="^", **grey),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_sensing": figure}


def continued(t: np.ndarray, risk: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """The median of risks that fall by `rate`² a step from the upper end of WINDOW on."""
    first = (risk <= WINDOW[0]).argmax(0)
    start = np.take_along_axis(risk, first[None], 0)
    line = np.median(start * rate ** (2.0 * (t[:, None] - t[first])), axis=-1)
    return np.where(t >= np.median(t[first]), line, np.nan)
