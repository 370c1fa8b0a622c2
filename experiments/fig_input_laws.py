"""Alignment, risk and one-step error under five laws of the inputs."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from typing import Any

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress, part

LAWS = ("gaussian", "rademacher", "sphere", "student", "spiked")
COLOURS = dict(
    zip(
        LAWS,
        (plotting.BLACK, plotting.SKY, plotting.GREEN, plotting.VERMILLION, plotting.PURPLE),
        strict=True,
    )
)
DASHES = dict(zip(LAWS, ("-", (0, (4, 1.5)), (0, (1, 1)), "-", "-"), strict=True))


# Expect: with E xxᵀ = I the law of the inputs hardly shows in a run, (a, b) four curves in one: it
# acts through the spectrum of Σ̂ alone. (c) It shows in the error of the one-step gradient, by the
# fourth moment E z⁴ alone: N·E‖(Σ̂ − I)Δ‖²/‖Δ‖² = d − 2 + E z⁴ for independent entries, d − 1 on
# the sphere, at every N; Student's mean over draws is itself heavy-tailed. A spike in the
# covariance is another matter: G = Σ̂Δ turns towards it, so that (a) the alignment, after A has
# found U(G), settles further off, near the angle between U and ΣU, which no N removes.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """LoRA-init in the noiseless linear model, x = Σ^{1/2}z with E zzᵀ = I."""

    trials: int = 16
    """Number of trials; trial i has seed i."""
    d: int = 60
    """Input and output width, d = k."""
    true_rank: int = 2
    """r*."""
    rank: int = 4
    """r."""
    samples: int = 960
    """N of (a) and (b)."""
    freedom: float = 6.0
    """ν of Student inputs, E z⁴ = 3 + 6/(ν − 4)."""
    spike: float = 4.0
    """Variance of the first input under the spiked covariance; that of the others is 1."""
    init_std: float = 1e-4
    """α."""
    learning_rate: float = 0.1
    """η."""
    steps: int = 300
    """How many steps."""
    records: int = 150
    """About how many points of each curve to store."""
    small: int = 20
    """d of (c)."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """N/d of (c)."""
    draws: int = 4000
    """Instances of (c)."""


# Sums over N = 960 rows; growth from α multiplies relative perturbations by a few, and an angle of
# 1e-2 shows them 1e2 times.
TOLERANCE = agreement.tolerance(size=960, growth=1e2)

SMOKE = Config(
    trials=2, d=12, samples=120, steps=150, records=40, small=6, ratios=(4, 16), draws=50
)


def instances(config: Config, law: str, d: int, samples: int, count: int) -> lt.LinearProblem:
    """Problems with the same Δ under every law."""
    options: dict[str, Any] = {"inputs": law, "freedom": config.freedom}
    if law == "spiked":
        options = {"covariance": np.where(np.arange(d) == 0, config.spike, 1.0)}
    return lt.sample_linear(
        d=d,
        k=d,
        true_rank=config.true_rank,
        samples=samples,
        seeds=range(count),
        **options,
        **config.where,
    )


def fourth_moment(law: str, freedom: float) -> float:
    """E z⁴ of independent entries; that of the sphere by its one-step error, as if m₄ = 1."""
    return {"gaussian": 3.0, "student": 3 + 6 / (freedom - 4)}.get(law, 1.0)


def run(config: Config, progress: Progress) -> Data:
    """Alignment and risk (law, t, seed), plateaus (law, seed), one-step errors (law, N, seed)."""
    kept = np.unique(np.linspace(0, config.steps, config.records).round().astype(int))
    alignment, risk, plateaus, errors = [], [], [], []
    for i, law in enumerate(LAWS):
        problem = instances(config, law, config.d, config.samples, config.trials)
        made = lt.simulate(
            problem,
            "lora",
            rank=config.rank,
            learning_rate=config.learning_rate,
            steps=config.steps,
            init_std=config.init_std,
            record=("risk", "left_alignment"),
            progress=part(progress, i, len(LAWS), config.steps),
        )
        alignment.append(made["left_alignment"].cpu().numpy()[kept])
        risk.append(made["risk"].cpu().numpy()[kept])
        plateaus.append(predict.plateau(problem).cpu().numpy())
        if law != "spiked":
            errors.append([one_step(config, law, ratio) for ratio in config.ratios])
    return {
        "steps": kept,
        "alignment": np.stack(alignment),
        "risk": np.stack(risk),
        "plateau": np.stack(plateaus),
        "one_step": np.array(errors),
    }


def one_step(config: Config, law: str, ratio: int) -> np.ndarray:
    """N‖G − Δ‖²/‖Δ‖² of every draw."""
    samples = config.small * ratio
    problem = instances(config, law, config.small, samples, config.draws)
    miss = problem.one_step_gradient().dense() - problem.shift.dense()
    size = (problem.shift.dense() ** 2).sum((-2, -1))
    return (samples * (miss**2).sum((-2, -1)) / size).cpu().numpy()


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Alignment, risk, and the one-step error against the samples."""
    figure, axes = plotting.figure(1, 3, height=3.1)
    lines = {law: {"color": COLOURS[law], "linestyle": DASHES[law]} for law in LAWS}
    theory = {"color": plotting.THEORY, "linestyle": "--", "linewidth": 0.9}
    for i, law in enumerate(LAWS):
        width = 2.4 if law == "gaussian" else 1.2
        for ax, name in zip(axes[0], ("alignment", "risk"), strict=False):
            if law in ("gaussian", "spiked"):
                plotting.band(ax, data["steps"], data[name][i], **lines[law], lw=width)
            else:
                ax.plot(data["steps"], data[name][i].mean(-1), **lines[law], lw=width)
        axes[0, 0].axhline(data["plateau"][i].mean(), **{**theory, "color": COLOURS[law]})
    axes[0, 0].set(ylim=(0, 1.05))
    axes[0, 0].set_ylabel(r"$\sin\angle_{\max}(U_{r^*}(A_t),\,U_{r^*}(G))$")
    axes[0, 1].set(yscale="log", ylim=(1e-9, 5))
    axes[0, 1].set_ylabel(r"risk $\frac{1}{2}\,\mathrm{tr}(E^\top\Sigma E)$")
    for ax in axes[0, :2]:
        ax.set(xlabel="step $t$", xlim=(0, config.steps))
    _one_step(axes[0, 2], data, config, theory)
    plotting.label_panels(axes[0], ("alignment", "risk", f"one step, $d={config.small}$"))
    names = {"student": rf"Student, $\nu={config.freedom:g}$", "spiked": "Gaussian, spiked Σ"}
    handles = [
        plotting.key(names.get(law, law.capitalize()), **lines[law], marker=plotting.MARKERS[i])
        for i, law in enumerate(LAWS)
    ]
    handles.append(plotting.key("predicted", **theory))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return {"fig_input_laws": figure}


def _one_step(ax: plotting.Axes, data: Data, config: Config, theory: dict[str, Any]) -> None:
    """Panel (c): means and two standard errors."""
    ratios, white = np.array(config.ratios, dtype=float), LAWS[:-1]
    for i, law in enumerate(white):
        found = data["one_step"][i]
        mean, error = found.mean(-1), found.std(-1) / found.shape[-1] ** 0.5
        look = {"color": COLOURS[law], "marker": plotting.MARKERS[i], "linestyle": "none"}
        shifted = ratios * 1.1 ** (i - 1.5)
        ax.errorbar(shifted, mean, yerr=2 * error, capsize=2, elinewidth=0.8, **look)
        level = config.small - 2 + fourth_moment(law, config.freedom)
        ax.axhline(level, **{**theory, "color": COLOURS[law]})
    ax.set(xscale="log", xlabel="samples $N/d$")
    ax.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios], minor=False)
    ax.tick_params(which="minor", bottom=False, labelbottom=False)
    ax.set_ylabel(r"$N\,\Vert G-\Delta\Vert_F^2\,/\,\Vert\Delta\Vert_F^2$")
