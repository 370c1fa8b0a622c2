"""`loraone simulate`: one method on random instances."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loraone_theory import methods, plotting
from loraone_theory.cli import given
from loraone_theory.cli.common import Name, check_target, console
from loraone_theory.cli.guard import DONE, FAILED
from loraone_theory.cli.words import settings
from loraone_theory.core import validate
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods.schedules import SCHEDULES, Schedule
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.relu.sampling import sample_relu

RECORDED = ("loss", "risk", "left_alignment", "right_alignment")
ROWS = 11
# What random instances are drawn by.
OF_INSTANCES = (
    "model", "d", "k", "true_rank", "samples", "condition_number", "relative_shift", "noise_std",
)  # fmt: skip


@dataclass(frozen=True)
class Simulate:
    """Run a method on random instances and print a short table of the mean over seeds."""

    method: Name
    """A method's name; `loraone list` shows them, `loraone describe NAME` their settings."""
    set: tuple[str, ...] = ()
    """Hyper-parameters of the method, for example --set ratio=4 weight_decay=0.1."""
    model: Literal["linear", "relu"] = "linear"
    """The linear model, or the ReLU one on N samples."""
    d: int = 100
    """Input width."""
    k: int = 100
    """Output width."""
    rank: int = 8
    """r, the rank of the factors."""
    true_rank: int = 4
    """r*, the rank of the shift to learn."""
    samples: int = 1600
    """N, the number of training inputs."""
    condition_number: float = 1.0
    """κ, the ratio of the largest to the smallest singular value of the shift."""
    relative_shift: float = 0.1
    """c of the ReLU model, the largest |Δ_m|/|w_m|."""
    learning_rate: float | None = None
    """η > 0, by default 0.1."""
    schedule: tuple[str, ...] | None = None
    """A schedule in place of η, for example --schedule cosine peak=0.5 warmup=50; its `steps` are
    those of the run unless given."""
    steps: int = 500
    """How many steps."""
    seeds: tuple[int, ...] | None = None
    """One trial for each seed."""
    trials: int | None = None
    """In place of --seeds: number of trials, by default 4; trial i has seed i."""
    batch_size: int | None = None
    """Rows of each step's gradient; default: all."""
    sampling: Literal["with-replacement", "epochs", "fresh"] | None = None
    """How the rows of a batch are drawn."""
    init_std: float | None = None
    """α, the standard deviation of a Gaussian A0; default: the method's own."""
    damping: float = 0.0
    """λ >= 0 of preconditioned rules."""
    record: tuple[str, ...] = RECORDED
    """What to record; `loraone list` shows the names."""
    every: int = 1
    """Record once in so many steps."""
    reduce: Literal["auto", "never"] = "auto"
    """Whether to work in reduced coordinates where that is exact."""
    engine: Literal["torch", "numba"] = "torch"
    """Which loop: numba (the extra "fast") has compiled ones for plain descent of A and B on the
    reduced linear model without noise (not of sample_linear_matrix_free), and for any method on the
    ReLU one; it refuses the rest."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it runs."""
    dtype: Literal["float64", "float32"] = "float64"
    """Its precision."""
    noise_std: float = 0.0
    """σ >= 0 of the labels of random instances."""
    data: Path | None = None
    """Inputs X of your own, a .npy or .csv with one row a sample, in place of random instances."""
    labels: Path | None = None
    """Their labels Y, one row a sample."""
    weights: Path | None = None
    """The pre-trained weight W (d × k) that goes with them; 0 where it is left out."""
    save: Path | None = None
    """Write the whole trajectory to this .npz."""
    plot: Path | None = None
    """Draw every record against the step to this .png or .pdf."""

    def run(self) -> int:
        """Simulate, print, save, draw; 1 if a run diverged, grows or oscillates."""
        check_target(self.save, ".npz")
        check_target(self.plot, ".png", ".pdf")
        if self.plot is not None and not self.record:
            raise ValueError("--plot draws what --record names, and that is nothing; name a record")
        seeds, rate, method = self._seeds(), self._rate(), self._method()
        problem = self._problem(seeds)
        screen = console()
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(self.method, total=self.steps)
            trajectory = simulate(
                problem,
                method,
                rank=self.rank,
                learning_rate=rate,
                steps=self.steps,
                seeds=seeds,
                init_std=self.init_std,
                damping=self.damping,
                record=self.record,
                every=self.every,
                reduce=self.reduce,
                batch_size=self.batch_size,
                sampling=self.sampling,
                engine=self.engine,
                progress=lambda done: bar.update(task, completed=done),
            )
        try:
            self._write(trajectory)
        finally:
            self._print(trajectory, screen, method)
        return DONE if trajectory.ok.all() else FAILED

    def _seeds(self) -> Sequence[int]:
        if self.seeds is not None:
            if self.trials is not None:
                raise ValueError("--seeds and --trials exclude each other; give one of them")
            return validate.seeds(self.seeds)
        return range(validate.integer("trials", 4 if self.trials is None else self.trials, least=1))

    def _method(self) -> methods.Method:
        factory = methods.METHODS[validate.choice("method", self.method, methods.METHODS)]
        found = settings(self.set, factory, f"method {self.method!r}")
        if "init_std" in found and self.init_std is not None:
            raise ValueError("--set init_std=... and --init-std are the same; give one of them")
        return factory(**found).at(self.rank)

    def _rate(self) -> float | Schedule:
        if self.schedule is None:
            return 0.1 if self.learning_rate is None else self.learning_rate
        if not self.schedule:
            raise ValueError("--schedule needs a name and its settings, as in constant rate=0.1")
        if self.learning_rate is not None:
            raise ValueError("--schedule and --learning-rate exclude each other; give one of them")
        name, *given = self.schedule
        factory = SCHEDULES[validate.choice("schedule", name, SCHEDULES)]
        found = settings(given, factory, f"schedule {name!r}")
        if "steps" in inspect.signature(factory).parameters:
            found = {"steps": self.steps, **found}
        for needed, parameter in inspect.signature(factory).parameters.items():
            if parameter.default is inspect.Parameter.empty and needed not in found:
                raise ValueError(f"schedule {name!r} needs {needed}; write {needed}=VALUE after it")
        return factory(**found)

    def _problem(self, seeds: Sequence[int]) -> Problem:
        self._refuse_unused()
        if self.data is not None:
            kind, keep = validate.dtype(self.dtype), self.batch_size is not None
            files = self.data, self.labels, self.weights
            return given.problem(*files, kind, self.device, keep=keep)
        for name in ("labels", "weights"):
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} goes with --data, the inputs; give both")
        common: dict[str, Any] = {
            "d": self.d,
            "k": self.k,
            "true_rank": self.true_rank,
            "samples": self.samples,
            "condition_number": self.condition_number,
            "noise_std": self.noise_std,
            "seeds": seeds,
            "dtype": self.dtype,
            "device": self.device,
        }
        if self.model == "relu":
            return sample_relu(**common, relative_shift=self.relative_shift)
        return sample_linear(**common, keep_inputs=self.batch_size is not None)

    def _refuse_unused(self) -> None:
        """What was given and would change nothing is refused."""
        usual = {field.name: field.default for field in fields(self)}
        unused: tuple[str, ...]
        if self.data is not None:
            unused, why = OF_INSTANCES, "is of random instances, and --data brings its own"
        elif self.model == "linear":
            unused, why = ("relative_shift",), "is of the ReLU model; give --model relu too"
        else:
            return
        for name in unused:
            if getattr(self, name) != usual[name]:
                raise ValueError(
                    f"--{name.replace('_', '-')} {why}; got {getattr(self, name)}; leave it out"
                )

    def _write(self, trajectory: Trajectory) -> None:
        if self.save is not None:
            trajectory.save(self.save)
        if self.plot is not None:
            with plotting.style():
                plotting.write(draw(trajectory), self.plot)

    def _print(self, trajectory: Trajectory, screen: Console, method: methods.Method) -> None:
        screen.print(_table(trajectory))
        for name, reason in trajectory.reasons.items():
            screen.print(f"{name} is not known: it {reason}")
        if "risk" in self.record:
            law = "input x with E xx' = I" if self.model == "linear" else "Gaussian input"
            screen.print(f"The risk is the expected loss on a fresh {law}.")
        hidden = "right_alignment" in self.record and trajectory.config["reduced"]
        if hidden and method.init_std is not None:
            screen.print(
                "In reduced coordinates LoRA-init's right alignment is 0 by construction; "
                "--reduce never observes it."
            )
        for message, count in Counter(str(s) for s in trajectory.status.flat).items():
            screen.print(f"{count} of {trajectory.status.size} runs: {message}")


def _columns(trajectory: Trajectory) -> dict[str, torch.Tensor]:
    """Heading -> (T, *batch); of a vector its first entry, which is the largest."""
    return {
        f"{name}[0]" if name in trajectory.record_axes else name: (
            values[..., 0] if name in trajectory.record_axes else values
        )
        for name, values in trajectory.records.items()
    }


def _table(trajectory: Trajectory) -> Table:
    """Rows evenly spaced in t; the mean over the seeds that have a value."""
    columns = _columns(trajectory)
    table = Table(box=None, pad_edge=False)
    for heading in ("t", *(name.replace("_", " ") for name in columns)):
        table.add_column(heading, justify="right")
    last = len(trajectory.steps) - 1
    for i in np.unique(np.linspace(0, last, ROWS).round().astype(int)):
        means = [torch.nanmean(values[i]).item() for values in columns.values()]
        cells = ["–" if np.isnan(mean) else f"{mean:.4g}" for mean in means]
        table.add_row(str(trajectory.steps[i]), *cells)
    return table


def draw(trajectory: Trajectory) -> plotting.Figure:
    """A panel for each record, logarithmic where it is positive; a line for each of a vector."""
    arrays, names = trajectory.to_numpy(), list(trajectory.records)
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    figure, axes = plotting.figure(rows, columns, height=0.4 + 2.2 * rows)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        values = arrays[name]
        lines = np.moveaxis(values, -1, 0) if name in trajectory.record_axes else values[None]
        for line, colour in zip(lines, plotting.sequence(len(lines)), strict=True):
            plotting.band(ax, arrays["steps"], line, color=colour)
        unit = trajectory.units[name]
        label = name.replace("_", " ") + ("" if unit == "1" else f" [{unit}]")
        known = values[np.isfinite(values)]
        ax.set(xlabel="step $t$", ylabel=label)
        if known.size and known.min() > 0:
            ax.set(yscale="log")
    return figure
