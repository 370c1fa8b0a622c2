"""ReLU model: how far twice the one-step gradient is from the shift, and where it starts from."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting, predict
from loraone_theory.experiment import Data, Progress

LAWS = ("tangent", "gaussian", "orthonormal")
NAMES = (r"$\Delta_m\perp w_m$, equal", "Gaussian columns", "orthonormal columns")
REQUIRED = 1 / 20


# Expect: (a) where every Δ_m is orthogonal to w_m and of equal relative size the error lies on
# c/π; where the sizes differ it is below, by a factor that does not depend on c. On N samples it
# cannot fall below the dotted noise level. (b) ρ₀ falls as √(d/N) on the dashed prediction, then
# below it, as that takes the largest possible bias, and meets 1/20 only for N/d of order 500F²,
# F = ‖Δ‖_F/λ*_{r*}.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """The negative gradient G at W, in expectation and on N samples."""

    trials: int = 4
    """Number of trials; trial i has seed i."""
    d: int = 40
    """Input and output width, d = k."""
    true_rank: int = 2
    """r* of panel (a), where the shift has a low rank."""
    shifts: tuple[float, ...] = tuple(float(x) for x in np.geomspace(1e-3, 1.0, 13))
    """c, the largest ‖Δ_m‖/‖w_m‖, of panel (a)."""
    noisy: tuple[int, ...] = (16, 256)
    """N/d of panel (a), beside N = ∞."""
    relative_shift: float = 0.1
    """c of panel (b)."""
    ratios: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096)
    """N/d of panel (b)."""
    spectra: tuple[tuple[int, float], ...] = ((1, 1.0), (2, 1.0), (4, 1.0), (2, 3.0), (4, 10.0))
    """(r, κ) of panel (b), r = r*."""


# Sums over up to N = 4096 d; the smallest shift is 1e-3 of the weight it is taken from.
TOLERANCE = agreement.tolerance(size=4096 * 40, growth=1e3)

SMOKE = Config(
    trials=2, d=12, shifts=(1e-2, 1.0), noisy=(16,), ratios=(4, 64), spectra=((1, 1.0), (2, 3.0))
)


def run(config: Config, progress: Progress) -> Data:
    """Relative errors of 2G against c; ρ₀ of Spectral-init and F against N/d."""
    population = np.empty((len(LAWS), len(config.shifts), config.trials))
    sampled = np.empty((len(config.noisy), len(config.shifts), config.trials))
    for j, c in enumerate(config.shifts):
        for i, law in enumerate(LAWS):
            problem = tangent(config, c) if law == "tangent" else drawn(config, c, columns=law)
            population[i, j] = one_step_error(problem)
        for i, ratio in enumerate(config.noisy):
            sampled[i, j] = one_step_error(drawn(config, c, samples=ratio * config.d))
        progress(0.3 * (j + 1) / len(config.shifts))
    rho = np.empty((len(config.spectra), len(config.ratios) + 1, config.trials))
    concentration = np.empty((len(config.spectra), config.trials))
    for i, (rank, kappa) in enumerate(config.spectra):
        for j, ratio in enumerate((*config.ratios, None)):
            for seed in range(config.trials):  # one at a time: X of the largest N is large
                problem = drawn(
                    config,
                    config.relative_shift,
                    true_rank=rank,
                    condition_number=kappa,
                    samples=ratio and ratio * config.d,
                    seeds=[seed],
                )
                rho[i, j, seed], concentration[i, seed] = first_error(problem)
        progress(0.3 + 0.7 * (i + 1) / len(config.spectra))
    return {"population": population, "sampled": sampled, "rho": rho, "F": concentration}


def drawn(
    config: Config, c: float, *, samples: int | None = None, **changes: Any
) -> lt.ReLUProblem | lt.ReLUPopulation:
    """Random instances, on N samples where `samples` is given."""
    sizes: dict[str, Any] = {
        "d": config.d,
        "k": config.d,
        "true_rank": config.true_rank,
        "relative_shift": c,
        "seeds": range(config.trials),
        **config.where,
        **changes,
    }
    if samples is None:
        return lt.sample_relu_population(**sizes)
    return lt.sample_relu(**sizes, samples=samples)


def tangent(config: Config, c: float) -> lt.ReLUPopulation:
    """Shifts of full rank with every Δ_m orthogonal to w_m and ‖Δ_m‖ = c‖w_m‖."""
    W = drawn(config, c).pretrained
    other = drawn(config, c, seeds=range(config.trials, 2 * config.trials)).pretrained
    aside = other - W * (W * other).sum(-2, keepdim=True)  # columns of W are unit
    shift = aside * (c / torch.linalg.vector_norm(aside, dim=-2, keepdim=True))
    return lt.ReLUPopulation(pretrained=W, shift=shift)  # type: ignore[arg-type]


def one_step_error(problem: lt.ReLUProblem | lt.ReLUPopulation) -> np.ndarray:
    """‖2G − Δ‖_F/‖Δ‖_F."""
    delta = problem.shift.dense()
    miss = torch.linalg.matrix_norm(2 * problem.one_step_gradient() - delta)
    return (miss / torch.linalg.matrix_norm(delta)).cpu().numpy()


def first_error(problem: lt.ReLUProblem | lt.ReLUPopulation) -> tuple[float, float]:
    """ρ₀ = ‖A₀B₀ − Δ‖_F/λ*_{r*} of Spectral-init, and F = ‖Δ‖_F/λ*_{r*}."""
    start = lt.METHODS["lora-one"]().init(problem, problem.true_rank, (0,)).trainable
    least = lt.linalg.truncated_svd(problem.shift, problem.true_rank).S[..., -1]
    miss = torch.linalg.matrix_norm(problem.residual(lt.Factors(*start)))
    size = torch.linalg.matrix_norm(problem.shift.dense())
    return float(miss / least), float(size / least)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """One-step error against c; ρ₀ against N/d."""
    figure, axes = plotting.figure(1, 2, height=4.4)
    left, right = axes[0]
    c = np.array(config.shifts)
    colours = (plotting.BLUE, plotting.GREEN, plotting.ORANGE)
    for i, colour in enumerate(colours):
        line = {"color": colour, "marker": plotting.MARKERS[i], "label": NAMES[i]}
        plotting.spread(left, c, data["population"][i], **line)
    for i, ratio in enumerate(config.noisy):
        line = {"color": plotting.PURPLE, "marker": plotting.MARKERS[3 + i], "linestyle": "none"}
        plotting.spread(left, c, data["sampled"][i], label=f"$N/d={ratio}$", **line)
        # To leading order in c a sample contributes 2xxᵀΔ_m 1{w·x > 0}: mean Δ_m, mean square
        # ½·4(d + 2)‖Δ_m‖².
        noise = math.sqrt((2 * config.d + 3) / (ratio * config.d))
        label = r"$\sqrt{(2d+3)/N}$" if i == 0 else None
        left.axhline(noise, color=plotting.THEORY, linestyle=":", linewidth=0.9, label=label)
    left.plot(c, c / math.pi, color=plotting.THEORY, linestyle="--", label=r"$c/\pi$")
    left.set(
        xscale="log",
        yscale="log",
        xlabel=r"relative shift $c=\max_m\,\Vert\Delta_m\Vert/\Vert w_m\Vert$",
        ylabel=r"$\Vert 2G-\Delta\Vert_F\,/\,\Vert\Delta\Vert_F$",
    )
    ratios = np.array(config.ratios, dtype=float)
    smooth = np.geomspace(ratios[0], ratios[-1], 60)
    shades = plotting.sequence(len(config.spectra))
    beyond = ratios[-1] * 4
    for i, (rank, kappa) in enumerate(config.spectra):
        line = {"color": shades[i], "marker": plotting.MARKERS[i], "linestyle": "none"}
        F = float(data["F"][i].mean())
        label = rf"$r={rank},\ \kappa={kappa:g},\ F={F:.3g}$"
        plotting.spread(right, ratios, data["rho"][i, :-1], label=label, **line)
        plotting.spread(right, np.array([beyond]), data["rho"][i, -1:], **line)
        law = [
            predict.relu.first_error(
                config.relative_shift, F, samples=round(x * config.d), d=config.d
            )
            for x in smooth
        ]
        right.plot(smooth, law, color=shades[i], linestyle="--", linewidth=0.9)
    right.axhline(REQUIRED, color=plotting.VERMILLION, linewidth=1)
    right.annotate(
        "1/20", (ratios[0], REQUIRED), xytext=(0, -9), textcoords="offset points",
        color=plotting.VERMILLION, fontsize=8,
    )  # fmt: skip
    right.set(
        xscale="log",
        yscale="log",
        xlabel="samples per width $N/d$",
        ylabel=r"$\rho_0=\Vert A_0B_0-\Delta\Vert_F\,/\,\lambda^*_{r^*}$",
    )
    shown = [int(x) for x in ratios]
    names = [f"{x}" if i % 2 == 0 else "" for i, x in enumerate(shown)]
    right.set_xticks([*shown, beyond], [*names, r"$\infty$"])
    right.minorticks_off()
    plotting.label_panels((left, right), ("one-step gradient", "start of Spectral-init"))
    handles, _ = right.get_legend_handles_labels()
    handles.append(plotting.key("predicted", color=plotting.THEORY, linestyle="--", linewidth=0.9))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    right.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return {"fig_one_step_relu": figure}
