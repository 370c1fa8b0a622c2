"""Phase diagram of dense sensing: how often Δ is found, over the measurements and its rank."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import integrate, optimize

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.experiment import Data, Progress
from loraone_theory.sweeps.maps import maps

# Method and the standard deviation of its random start, None for the spectral one.
PANELS = {
    "GD, spectral": ("lora-one", None),
    "GD, random": ("lora", 1e-3),
    "precond., spectral": ("lora-one-preconditioned", None),
    "precond., random": ("p-lora", 1e-3),
}
# Of the curves beside the maps.
LOOKS = (
    {"color": plotting.BLUE, "marker": "o", "linestyle": "-"},
    {"color": plotting.BLUE, "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    {"color": plotting.VERMILLION, "marker": "o", "linestyle": "-"},
    {"color": plotting.VERMILLION, "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
)


# Expect: nobody finds Δ with as many measurements as it has degrees of freedom (dotted), and nearly
# everybody does with half as many again: at small ranks far fewer than nuclear norm minimisation
# asks for (dashed), at r* = d/2 a few more, since the rate tends to 1 at the dotted line and the
# number of steps cuts there: preconditioned descent is ahead. At small ranks it fails now and then
# from a small random start, well beyond the line where GD does not.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Dense Gaussian measurements without noise, r = r*."""

    trials: int = 6
    """Number of trials; trial i has seed i."""
    d: int = 8
    """Rows and columns, d = k."""
    true_ranks: tuple[int, ...] = (1, 2, 3)
    """r*, and as many for the factors."""
    ratios: tuple[float, ...] = (0.9, 1.2, 1.5, 1.8, 2.4)
    """Measurements over the degrees of freedom r*(2d − r*)."""
    condition_number: float = experiment.knob(2.0, least=1)
    """κ of Δ where r* > 1; σ₁ = 1."""
    learning_rate: float = 0.15
    """η of all four."""
    steps: int = 1200
    """How many steps each run has."""
    level: float = 1e-2
    """Δ is found where ‖AB − Δ‖_F is at most so many times ‖Δ‖_F at the end."""
    folder: str = ""
    """Where the sweep is kept, so that an interrupted one goes on; nowhere by default."""
    workers: int = 1
    """Processes; more than one need the extra "sweep"."""


# Found or not: rounding has no part in it but at a run that ends at the level itself.
TOLERANCE = agreement.USUAL

SMOKE = Config(trials=2, d=5, true_ranks=(1, 2), ratios=(0.8, 2.5), steps=150)

# Ten thousand runs: minutes on two cores, with a folder that an interrupted run goes on from.
PRESETS = {
    "full": Config(
        trials=30,
        d=10,
        true_ranks=(1, 2, 3, 4, 5),
        ratios=tuple(round(0.8 + 0.1 * i, 1) for i in range(18)),
        steps=1500,
        folder="sweeps/phase_diagram",
    )
}


def sweep_of(config: Config, folder: str | Path) -> lt.Sweep:
    """Success of every method over r*, ratio and seed."""
    panels = [
        (method if std is None else {"name": method, "init_std": std})
        for method, std in PANELS.values()
    ]
    points = [(r, panel) for panel in panels for r in config.true_ranks]
    return lt.Sweep(
        folder,
        name="phase diagram",
        fixed={
            "sampler": "sample_sensing",
            "ensemble": "dense",
            "d": config.d,
            "k": config.d,
            "learning_rate": config.learning_rate,
            "steps": config.steps,
            "every": config.steps,
            **config.where,
        },
        together={
            "method": [panel for _, panel in points],
            "true_rank": [r for r, _ in points],
            "rank": [r for r, _ in points],
            "condition_number": [config.condition_number if r > 1 else 1.0 for r, _ in points],
        },
        axes={"sample_ratio": config.ratios, "seed": range(config.trials)},
        measure={
            "found": {
                "record": "error",
                "reduce": "success",
                "level": config.level,
                "against": "zero",
            },
            "error": "final",
        },
    )


def run(config: Config, progress: Progress) -> Data:
    """Whether Δ was found, and ‖AB − Δ‖_F at the end, (method, r*, ratio, seed)."""
    return maps(
        lambda folder: sweep_of(config, folder),
        config.folder,
        ("found", "error"),
        axes=("point", "sample_ratio", "seed"),
        shape=(len(PANELS), len(config.true_ranks)),
        workers=config.workers,
        progress=progress,
    )


def comparable(data: Data) -> Data:
    """Whether Δ was found; a run that wanders to its end ends where rounding leads it."""
    return {"found": data["found"]}


def degrees_of_freedom(d: int, rank: float) -> float:
    """r(2d − r) of a d×d matrix of rank r."""
    return rank * (2 * d - rank)


def convex_threshold(d: int, rank: float) -> float:
    """Measurements at which nuclear norm minimisation starts to find a d×d matrix of rank r.

    The statistical dimension of the norm's descent cone, for d → ∞ at fixed ρ = r/d:
    d²·inf_τ {ρ + (1 − ρ)[ρ(1 + τ²) + (1 − ρ)∫_τ² (u − τ)²√(4 − u²)/π du]}.

    Reference: Amelunxen, Lotz, McCoy, Tropp 2014, Proposition 4.7, square case.
    """
    rho = rank / d

    def width(tau: float) -> float:
        tail = integrate.quad(lambda u: (u - tau) ** 2 * np.sqrt(4 - u * u) / np.pi, tau, 2)[0]
        return rho + (1 - rho) * (rho * (1 + tau**2) + (1 - rho) * tail)

    return d * d * float(optimize.minimize_scalar(width, bounds=(0, 2), method="bounded").fun)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """A map for each method, and the share found against the ratio at one rank."""
    figure, axes = plotting.figure(2, 3, height=4.6)
    maps = [axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]]
    ranks, ratios = np.array(config.true_ranks), np.array(config.ratios)
    finer = np.linspace(ranks.min() - 0.5, ranks.max() + 0.5, 60).clip(0.5, config.d)
    freedom = degrees_of_freedom(config.d, finer)
    convex = np.array([convex_threshold(config.d, r) for r in finer]) / freedom
    lines = {
        r"degrees of freedom $r_*(2d-r_*)$": (
            np.ones_like(finer),
            {"color": "white", "linestyle": ":", "linewidth": 1.6},
        ),
        "nuclear norm minimisation": (convex, {"color": plotting.ORANGE, "linestyle": "--"}),
        r"$m = dk$": (config.d**2 / freedom, {"color": plotting.VERMILLION, "linestyle": "-."}),
    }
    shares = data["found"].mean(-1)
    for ax, share in zip(maps, shares, strict=True):
        ax.grid(visible=False)
        edges = [plotting.edges(x) for x in (ratios, ranks)]
        shown = ax.pcolormesh(*edges, share, cmap="viridis", vmin=0, vmax=1, rasterized=True)
        for values, look in lines.values():
            ax.plot(values, finer, **look)
        ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]], yticks=ranks)
        ax.set(xlabel=r"$m\,/\,r_*(2d-r_*)$", ylabel="$r_*$")
    for ax, rank in ((axes[0, 2], 0), (axes[1, 2], len(ranks) - 1)):
        for share, look in zip(shares, LOOKS, strict=True):
            ax.plot(ratios, share[rank], markersize=3.5, linewidth=1, **look)
        ax.axvline(1.0, color="#808080", linestyle=":", linewidth=1.2)
        ratio = convex_threshold(config.d, ranks[rank]) / degrees_of_freedom(config.d, ranks[rank])
        if ratio <= ratios.max():
            ax.axvline(ratio, color=plotting.ORANGE, linestyle="--")
        ax.set(xlabel=r"$m\,/\,r_*(2d-r_*)$", ylabel="share found", ylim=(-0.03, 1.03))
    titles = list(PANELS)
    plotting.label_panels(maps, titles)
    figure.colorbar(shown, ax=list(axes.flat), label="share found", aspect=40, pad=0.02)
    for ax, letter, rank in zip(axes[:, 2], "ef", ranks[[0, -1]], strict=True):
        ax.set_title(rf"({letter}) $r_*={rank}$", loc="left")
    dark = {"white": "#808080"}
    handles = [
        plotting.key(name, **{**look, "color": dark.get(look["color"], look["color"])})
        for name, (_, look) in lines.items()
    ]
    handles += [
        plotting.key(name, linewidth=1, markersize=3.5, **look)
        for name, look in zip(PANELS, LOOKS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return {"fig_phase_diagram": figure}
