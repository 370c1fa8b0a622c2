"""Where the bound (1 − η/4)ᵗ of Theorem 4.2 holds: the share of runs within it, over N/d."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.claims import stats
from loraone_theory.experiment import Data, Progress
from loraone_theory.predict import relu as predict_relu

# Panels: the field of Config with the values along the axis, its label, its short name.
AXES = (
    ("condition_numbers", r"$\kappa$", "kappa"),
    ("learning_rates", r"$\eta$", "eta"),
    ("ranks", "$r=r_*$", "rank"),
    ("shifts", "$c$", "shift"),
)


# Expect: every map changes from none to all between N/d = 6 and 16, around the dashed line at
# 11.7, and hardly along its other axis; with Δ in one column the change is at twice as many.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Preconditioned LoRA-One from Spectral-init in the ReLU model, r = r*, until 1e-9."""

    trials: int = 16
    """Number of trials; trial i has seed i."""
    d: int = 24
    """Input and output width, d = k."""
    ratios: tuple[int, ...] = (4, 6, 8, 10, 12, 16, 24, 32)
    """N/d."""
    condition_numbers: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    """κ of the first map."""
    learning_rates: tuple[float, ...] = (0.2, 0.5, 0.9)
    """η of the second map."""
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    """r = r* of the third map."""
    shifts: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Relative shift c of the fourth map."""
    condition_number: float = 3.0
    """κ where it is not the axis."""
    learning_rate: float = 0.5
    """η where it is not the axis."""
    rank: int = 2
    """r = r* where it is not the axis."""
    shift: float = 0.1
    """c where it is not the axis."""
    level: float = 1e-9
    """Runs are followed down to this error, relative to t = 0."""


# Sums over N; rates are fitted down to an error of `level`, which is that far below the floor.
TOLERANCE = agreement.tolerance(size=32 * 24, growth=agreement.floor() / Config.level)

SMOKE = Config(
    trials=3,
    d=10,
    ratios=(4, 24),
    condition_numbers=(1.0, 10.0),
    learning_rates=(0.9,),
    learning_rate=0.9,
    ranks=(1, 2),
    shifts=(0.1,),
    level=1e-5,
)


@dataclass(frozen=True)
class Cell:
    """One entry of a map."""

    ratio: int
    kappa: float
    eta: float
    rank: int
    shift: float
    one_column: bool = False


def cells(config: Config, name: str) -> Iterator[Cell]:
    """The cells of the map called `name`, N/d outermost."""
    field = next(field for field, _, short in AXES if short == name)
    for ratio in config.ratios:
        centre = Cell(
            ratio, config.condition_number, config.learning_rate, config.rank, config.shift
        )
        for value in getattr(config, field):
            yield replace(centre, **{name: value})


def relative_error(config: Config, cell: Cell) -> np.ndarray:
    """‖E_t‖_F/‖E₀‖_F (T + 1, seeds), for as long as the envelope is above `level`."""
    problem: lt.ReLUProblem = lt.sample_relu(
        d=config.d,
        k=2 if cell.one_column else config.d,
        true_rank=1 if cell.one_column else cell.rank,
        samples=cell.ratio * config.d,
        relative_shift=cell.shift,
        condition_number=cell.kappa,
        seeds=range(config.trials),
        **config.where,
    )
    if cell.one_column:
        row = problem.shift.B * problem.shift.B.new_tensor([1.0, 0.0])
        shift = lt.Factors(problem.shift.A, row * (cell.shift / abs(row).amax(-1, keepdim=True)))
        population = lt.ReLUPopulation(pretrained=problem.pretrained, shift=shift)
        problem = replace(problem, population=population)
    run = lt.simulate(
        problem,
        "lora-one-preconditioned",
        rank=problem.true_rank,
        learning_rate=cell.eta,
        steps=math.ceil(math.log(config.level) / math.log(predict_relu.envelope(cell.eta))),
        record=("error",),
    )
    error = run["error"].cpu().numpy()
    return error / error[0]


def within(relative: np.ndarray, eta: float, level: float) -> float:
    """Share of runs that stay within the envelope down to `level`."""
    bound = predict_relu.envelope(eta) ** np.arange(len(relative))[:, None]
    # One part in 1e5 for the rounding of the smallest errors looked at.
    outside = (relative > bound * (1 + 1e-5)) & (relative > level)
    return float((~outside.any(0)).mean())


def run(config: Config, progress: Progress) -> Data:
    """Shares by map, and rates against N/d for generic Δ and Δ in one column."""
    maps = {name: list(cells(config, name)) for _, _, name in AXES}
    total = sum(map(len, maps.values())) + 2 * len(config.ratios)
    data: Data = {}
    done = 0
    for name, entries in maps.items():
        shares = []
        for cell in entries:
            shares.append(within(relative_error(config, cell), cell.eta, config.level))
            done += 1
            progress(done / total)
        data[f"share.{name}"] = np.array(shares).reshape(len(config.ratios), -1)
    for kind, one_column in (("generic", False), ("column", True)):
        rates, shares = [], []
        for ratio in config.ratios:
            cell = Cell(
                ratio, config.condition_number, config.learning_rate, config.rank, config.shift,
                one_column=one_column,
            )  # fmt: skip
            relative = relative_error(config, cell)
            rates.append(stats.decay_rate(relative, low=config.level, high=1e-2))
            shares.append(within(relative, cell.eta, config.level))
            done += 1
            progress(done / total)
        data[f"rate.{kind}"], data[f"share.{kind}"] = np.array(rates), np.array(shares)
    return data


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Four maps, the share with Δ in one column, and the rates behind them."""
    figure, axes = plotting.figure(2, 3, height=4.7)
    maps, (share, rate) = axes.flat[:4], axes.flat[4:]
    threshold = (1 - math.sqrt(0.5)) ** -2
    place = np.interp(threshold, config.ratios, np.arange(len(config.ratios)))
    for ax, (field, label, name) in zip(maps, AXES, strict=True):
        values = data[f"share.{name}"]
        ax.imshow(values, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value < 0.5 else "black"
            text = f"{value:.1f}".removesuffix(".0")
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
        ax.axhline(place, color=plotting.VERMILLION, linestyle="--", linewidth=1)
        ax.grid(visible=False)
        ax.set_xticks(range(values.shape[1]), [f"{v:g}" for v in getattr(config, field)])
        ax.set_yticks(range(len(config.ratios)), [f"{v}" for v in config.ratios])
        ax.set(xlabel=label)
    for ax in axes[:, 0]:
        ax.set(ylabel="$N/d$")
    ratios = np.array(config.ratios)
    fine = np.geomspace(ratios[0], ratios[-1], 200)
    kinds = (("generic", plotting.BLUE, 1, "o"), ("column", plotting.GREEN, 2, "s"))
    for kind, colour, thinning, marker in kinds:
        share.plot(ratios, data[f"share.{kind}"], color=colour, marker=marker)
        plotting.spread(
            rate, ratios, data[f"rate.{kind}"], color=colour, marker=marker, linestyle="none"
        )
        edge = 1 - config.learning_rate / 2 * (1 - np.sqrt(thinning / fine)) ** 2
        rate.plot(fine, edge, color=colour, linestyle="--", linewidth=1)
    rate.axhline(
        predict_relu.envelope(config.learning_rate), color=plotting.VERMILLION, linewidth=1
    )
    for ax, label in ((share, "share of runs within"), (rate, "rate")):
        ax.set(xscale="log", xlabel="$N/d$", ylabel=label)
        ticks = [r for r in (4, 8, 16, 32) if ratios[0] <= r <= ratios[-1]]
        ax.set_xticks(ticks, [f"{r}" for r in ticks])
        ax.minorticks_off()
    titles = ("condition number", "learning rate", "rank", "relative shift", "one column", "rates")
    plotting.label_panels(axes.flat, titles)
    handles = [
        plotting.key(r"generic $\Delta$", color=plotting.BLUE, marker="o"),
        plotting.key(r"$\Delta$ in one column", color=plotting.GREEN, marker="s"),
        plotting.key("predicted", color=plotting.THEORY, linestyle="--", linewidth=1),
        plotting.key(r"$1-\eta/4$, $N/d=11.7$", color=plotting.VERMILLION, linewidth=1),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_t42_map": figure}
