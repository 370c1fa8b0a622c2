"""The figure of one batch of runs: risk, loss and alignments, with what is predicted of them."""

from __future__ import annotations

import numpy as np

from loraone_theory import plotting, predict
from loraone_theory.dynamics.records import ALIGNMENTS
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.linear.problem import LinearProblem


def draw(run: Trajectory) -> plotting.Figure:
    """Risk, loss and alignments over steps; see `Trajectory.plot`.

    Raises:
        ValueError: none of them was recorded.
    """
    sizes = [name for name in ("risk", "loss") if name in run.records]
    angles = [n for n in run.records if n in ALIGNMENTS and n not in run.record_axes]
    if not sizes and not angles:
        raise ValueError(
            "plot draws 'risk', 'loss' and alignments, and none was recorded; got "
            f"{', '.join(run.records) or 'no records'}; simulate with record=('loss', 'risk')"
        )
    panels = [[name] for name in sizes] + ([angles] if angles else [])
    marks = _predicted(run)
    with plotting.style():
        made, axes = plotting.figure(1, len(panels), height=2.4)
        for ax, names in zip(axes[0], panels, strict=True):
            colours = plotting.sequence(len(names) * max(1, _curves(run)))
            for i, name in enumerate(names):
                _lines(ax, run, name, colours[i * _curves(run) :])
            for name in names:
                for label, value in marks.get(name, ()):
                    ax.axhline(value, color=plotting.THEORY, linestyle="--", label=label)
            if names[0] in sizes:
                ax.set_yscale("log", nonpositive="mask")
            ax.set(xlabel="step $t$", ylabel="alignment" if names is angles else names[0])
            ax.legend()
    return made


def _curves(run: Trajectory) -> int:
    """How many lines a record has: one for each setting of the swept hyper-parameters."""
    return int(np.prod(run.status.shape[:-1], dtype=int))


def _lines(ax: plotting.Axes, run: Trajectory, name: str, colours: list[object]) -> None:
    values = run[name].cpu().numpy()
    for i, index in enumerate(np.ndindex(run.status.shape[:-1])):
        where = ", ".join(
            f"{axis}={run.coordinates[axis][j]}" for axis, j in zip(run.axes, index, strict=False)
        )
        label = f"{name}, {where}" if where else name
        picked = values[(slice(None), *index)]
        plotting.band(ax, run.steps, picked, label=label, color=colours[i])


def _predicted(run: Trajectory) -> dict[str, list[tuple[str, float]]]:
    """Record -> labels and heights of dashed lines; nothing outside the linear model."""
    plan = run.resume.plan
    if plan is None or not isinstance(plan.given, LinearProblem) or plan.given.noise is not None:
        return {}
    rank, seeds, method = plan.settings.rank, plan.settings.seeds, plan.method
    floors = predict.floor(plan.given, method, rank=rank, seeds=seeds)
    found = {}
    if float(floors.mean()) > 0:
        found["loss"] = [("predicted floor", float(floors.mean()))]
    if method.init_std is not None and rank > plan.given.true_rank:
        height = float(predict.plateau(plan.given).mean())
        found["left_alignment"] = [("predicted plateau", height)]
    return found
