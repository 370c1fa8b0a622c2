"""`loraone simulate`: one method on random linear instances."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loraone_theory import methods, plotting
from loraone_theory.cli import given
from loraone_theory.cli.common import check_target, console
from loraone_theory.cli.guard import DONE, FAILED
from loraone_theory.core import validate
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

RECORDED = ("loss", "risk", "left_alignment", "right_alignment")
ROWS = 11


@dataclass(frozen=True)
class Simulate:
    """Run a method on random linear instances and print a short table of the mean over seeds."""

    method: tyro.conf.Positional[str]
    """A method's name; `loraone list` shows them."""
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
    learning_rate: float = 0.1
    """η > 0."""
    steps: int = 500
    """How many steps."""
    trials: int = 4
    """Number of trials; trial i has seed i."""
    init_std: float | None = None
    """α, the standard deviation of a Gaussian A0; default: the method's own."""
    damping: float = 0.0
    """λ >= 0 of preconditioned rules."""
    every: int = 1
    """Record once in so many steps."""
    reduce: Literal["auto", "never"] = "auto"
    """Whether to work in reduced coordinates where that is exact."""
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
    """Draw loss, risk and alignments to this .png or .pdf."""

    def run(self) -> int:
        """Simulate, print, save, draw; 1 if a run diverged, grows or oscillates."""
        check_target(self.save, ".npz")
        check_target(self.plot, ".png", ".pdf")
        seeds = range(validate.integer("trials", self.trials, least=1))
        method = methods.get(self.method, self.rank)
        problem = self._problem(seeds)
        screen = console()
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(self.method, total=self.steps)
            trajectory = simulate(
                problem,
                method,
                rank=self.rank,
                learning_rate=self.learning_rate,
                steps=self.steps,
                seeds=seeds,
                init_std=self.init_std,
                damping=self.damping,
                record=RECORDED,
                every=self.every,
                reduce=self.reduce,
                progress=lambda done: bar.update(task, completed=done),
            )
        try:
            self._write(trajectory)
        finally:
            self._print(trajectory, screen, method)
        return DONE if trajectory.ok.all() else FAILED

    def _problem(self, seeds: range) -> LinearProblem:
        if self.data is not None:
            kind = validate.dtype(self.dtype)
            return given.problem(self.data, self.labels, self.weights, kind, self.device)
        for name in ("labels", "weights"):
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} goes with --data, the inputs; give both")
        return sample_linear(
            d=self.d,
            k=self.k,
            true_rank=self.true_rank,
            samples=self.samples,
            condition_number=self.condition_number,
            noise_std=self.noise_std,
            seeds=seeds,
            dtype=self.dtype,
            device=self.device,
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
            screen.print(f"{name.replace('_', ' ')}: {reason}")
        screen.print("The risk is the expected loss on a fresh input x with E xx' = I.")
        if self.reduce == "auto" and method.init_std is not None:
            screen.print(
                "In reduced coordinates LoRA-init's right alignment is 0 by construction; "
                "--reduce never observes it."
            )
        for message, count in Counter(str(s) for s in trajectory.status.flat).items():
            screen.print(f"{count} of {trajectory.status.size} runs: {message}")


def _table(trajectory: Trajectory) -> Table:
    """Rows evenly spaced in t; the mean over the seeds that have a value."""
    table = Table(box=None, pad_edge=False)
    for heading in ("t", *(name.replace("_", " ") for name in RECORDED)):
        table.add_column(heading, justify="right")
    last = len(trajectory.steps) - 1
    for i in np.unique(np.linspace(0, last, ROWS).round().astype(int)):
        means = [torch.nanmean(trajectory[name][i]).item() for name in RECORDED]
        cells = ["–" if np.isnan(mean) else f"{mean:.4g}" for mean in means]
        table.add_row(str(trajectory.steps[i]), *cells)
    return table


def draw(trajectory: Trajectory) -> plotting.Figure:
    """Loss and risk on the left, alignments on the right."""
    figure, axes = plotting.figure(1, 2, height=2.6)
    arrays = trajectory.to_numpy()
    blue, orange = plotting.BLUE, plotting.ORANGE
    for ax, names in zip(axes[0], (RECORDED[:2], RECORDED[2:]), strict=True):
        for name, colour in zip(names, (blue, orange), strict=True):
            plotting.band(ax, arrays["steps"], arrays[name], label=name, color=colour)
        ax.set(xlabel="step $t$")
        ax.legend()
    axes[0, 0].set(yscale="log", ylabel="loss, risk")
    axes[0, 1].set(ylabel="sine of the largest angle", ylim=(-0.03, 1.03))
    return figure
