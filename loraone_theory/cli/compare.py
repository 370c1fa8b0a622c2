"""`loraone compare`: every method at its own best step size, beside what is predicted of it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loraone_theory import plotting
from loraone_theory.cli.common import Names, check_target, console
from loraone_theory.cli.guard import DONE, FAILED
from loraone_theory.core import validate
from loraone_theory.predict import compare as comparing
from loraone_theory.predict.compare import Comparison
from loraone_theory.predict.curves import distance
from loraone_theory.predict.tuning import GRID
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

# Heading -> the array of a row whose mean over the seeds is shown.
COLUMNS = {
    "initial error": "initial_error",
    "floor": "floor",
    "loss reached": "reached",
    "rate predicted": "predicted_rate",
    "rate measured": "rate",
    "steps to 1e-6": "steps",
}
STATUS = {"converged": "all"}
LEAST = 1e-7  # no distance below this is drawn


@dataclass(frozen=True)
class Compare:
    """Run every method at its own best step size; print predictions beside measurements."""

    methods: Names = ()
    """Which methods; all of them where none is named."""
    model: Literal["linear", "relu"] = "linear"
    """The linear model, or the ReLU one."""
    d: int = 50
    """Input width."""
    k: int = 50
    """Output width."""
    rank: int = 4
    """r, the rank of the factors."""
    true_rank: int = 4
    """r*, the rank of the shift to learn."""
    samples: int | None = None
    """N; default: 16 d in the linear model, infinite in the ReLU one."""
    condition_number: float = 1.0
    """κ, the ratio of the largest to the smallest singular value of the shift."""
    noise_std: float = 0.0
    """σ >= 0 of the labels."""
    relative_shift: float = 0.1
    """c of the ReLU model, the largest |Δ_m|/|w_m|."""
    steps: int = 500
    """How many steps."""
    trials: int = 2
    """Number of trials; trial i has seed i. Step sizes are tuned on these seeds too."""
    tune: bool = False
    """Tune every method on the grid 2^-9 … 2, also where the best step size is predicted."""
    save: Path | None = None
    """Write every curve and number to this .npz, and the settings to the .json beside it."""
    plot: Path | None = None
    """Draw the distance to the floor against the step to this .png or .pdf."""

    def run(self) -> int:
        """Compare, print, save, draw; 1 if a run diverged."""
        check_target(self.save, ".npz")
        check_target(self.plot, ".png", ".pdf")
        seeds = range(validate.integer("trials", self.trials, least=1))
        screen = console()
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task("methods", total=self.steps)
            found = comparing.compare(
                self._problem(seeds),
                rank=self.rank,
                steps=self.steps,
                seeds=seeds,
                names=self.methods or None,
                tune=self.tune,
                report=lambda name, done: bar.update(task, description=name, completed=done),
            )
        try:
            self._write(found)
        finally:
            self._print(found, screen)
        return FAILED if any("diverged" in row.status for row in found.rows) else DONE

    def _write(self, found: Comparison) -> None:
        if self.save is not None:
            found.save(self.save)
        if self.plot is not None:
            with plotting.style():
                plotting.write(draw(found), self.plot)

    def _print(self, found: Comparison, screen: Console) -> None:
        screen.print(_table(found))
        screen.print(
            "Means over the seeds. Floor and loss: training loss. Rates and steps: of the distance "
            "to the floor, the root of the loss above it."
        )
        if any(row.chosen_by == "grid" for row in found.rows):
            low, high = min(GRID), max(GRID)
            screen.print(
                f"η from the grid: the best of {len(GRID)} between {low:.2g} and "
                f"{high:g} on seeds 0 to {self.trials - 1}, the ones reported."
            )
        for note, names in _notes(found).items():
            text = f"{', '.join(names)}: {note}"
            screen.print(textwrap.fill(text, screen.width, subsequent_indent="  "))

    def _problem(self, seeds: range) -> Problem:
        if self.model == "linear" and self.relative_shift != Compare.relative_shift:
            raise ValueError(
                f"--relative-shift is of the ReLU model; got {self.relative_shift} without "
                "--model relu; give both or leave it out"
            )
        sizes = {"d": self.d, "k": self.k, "true_rank": self.true_rank, "seeds": seeds}
        sizes |= {"condition_number": self.condition_number}
        if self.model == "linear":
            samples = 16 * self.d if self.samples is None else self.samples
            return sample_linear(**sizes, samples=samples, noise_std=self.noise_std)  # type: ignore[arg-type]
        sizes |= {"relative_shift": self.relative_shift}
        if self.samples is None:
            if self.noise_std != 0:
                raise ValueError(
                    "--noise-std is of the labels of samples, and the ReLU population has none; "
                    f"got {self.noise_std:g}; give --samples too"
                )
            return sample_relu_population(**sizes)  # type: ignore[arg-type]
        return sample_relu(**sizes, samples=self.samples, noise_std=self.noise_std)  # type: ignore[arg-type]


def _table(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("η", justify="right", min_width=8)
    table.add_column("from")
    for heading in COLUMNS:
        table.add_column(heading, justify="right", min_width=9)
    table.add_column("converged", no_wrap=True)
    for row in found.rows:
        means = [_cell(getattr(row, name)) for name in COLUMNS.values()]
        table.add_row(
            row.method,
            _cell(np.array([row.learning_rate])),
            "theory" if row.chosen_by == "prediction" else row.chosen_by,
            *means,
            STATUS.get(row.status, row.status.partition(":")[0].removesuffix(" converged")),
        )
    return table


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():.3g}" if np.isfinite(values).all() else "–"


def _notes(found: Comparison) -> dict[str, list[str]]:
    """Each note and the methods that it is about."""
    listed: dict[str, list[str]] = {}
    for row in found.rows:
        why = (row.status,) if ":" in row.status else ()
        for note in (*why, *row.notes):
            listed.setdefault(note, []).append(row.method)
    return listed


def draw(found: Comparison) -> plotting.Figure:
    """The distance to the floor: GD-type rules on the left, those of Adam's kind on the right."""
    figure, axes = plotting.figure(1, 2, height=4.6, sharey=True)
    handles = []
    for row in found.rows:
        if not np.isfinite(row.learning_rate):
            continue
        ax = axes[0, int(row.method.endswith("adamw"))]
        style = plotting.method_style(row.method)
        floor = np.nan_to_num(row.floor)
        curve = distance(row.loss, floor)
        curve = np.clip(np.where(np.isfinite(curve), curve, np.nan), LEAST, None)
        plotting.band(ax, np.arange(len(curve)), curve, **{**style, "label": None})
        handles.append(plotting.key(**style))
    for ax in axes[0]:
        ax.set(yscale="log", ylim=(LEAST, 3))
        plotting.log_time(ax)
    axes[0, 0].set_ylabel(r"distance to the floor, relative to $t=0$")
    plotting.label_panels(axes[0], ("gradient descent and its kin", "of Adam's kind"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
