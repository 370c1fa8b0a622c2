"""The figure of one batch of runs: risk, loss and alignments, with what is predicted of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loraone_theory import plotting, predict
from loraone_theory.core import validate
from loraone_theory.dynamics.records import ALIGNMENTS
from loraone_theory.problems.linear.problem import LinearProblem

if TYPE_CHECKING:
    from loraone_theory.dynamics.trajectory import Trajectory

# Characters that fit beside each other in the legend.
WIDE = 96
# Drawn on a logarithmic axis.
SIZES = ("risk", "loss")


def draw(run: Trajectory, names: Sequence[str] = ()) -> plotting.Figure:
    """Risk, loss and alignments over steps, or the records named; see `Trajectory.plot`.

    Raises:
        ValueError: none of them was recorded.
    """
    panels = [[validate.choice("record", name, run.records)] for name in names] or _usual(run)
    marks, swept = _predicted(run), len(run.axes) > 1
    with plotting.style():
        rows = -(-len(panels) // 3)
        made, axes = plotting.figure(rows, min(3, len(panels)), height=0.2 + 2.2 * rows)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, group in zip(axes.flat, panels, strict=False):
            lines = [line for name in group for line in _lines(run, name)]
            for (label, values), colour in zip(lines, plotting.sequence(len(lines)), strict=True):
                plotting.band(ax, run.steps, values, label=label, color=colour)
            for label, height in (mark for name in group for mark in marks.get(name, ())):
                ax.axhline(height, color=plotting.THEORY, linestyle="--", label=label)
            if group[0] in SIZES:
                ax.set_yscale("log", nonpositive="mask")
            ax.set(xlabel="step $t$", ylabel=_title(run, group))
            if not swept:
                ax.legend()
        if swept:  # long labels go below all panels
            _legend_below(made, axes)
    return made


def _legend_below(figure: plotting.Figure, axes: np.ndarray) -> None:
    """One legend for all panels, a line or two of it to a row, and room for it."""
    found = [pair for ax in axes.flat for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    by_label = {label: handle for handle, label in found}
    columns = max(1, WIDE // (8 + max(map(len, by_label))))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.18 * -(-len(by_label) // columns))
    figure.legend(by_label.values(), by_label, loc="outside lower center", ncols=columns)


def _usual(run: Trajectory) -> list[list[str]]:
    """Panels of risk, loss and alignments, as far as recorded."""
    sizes = [name for name in SIZES if name in run.records]
    angles = [n for n in run.records if n in ALIGNMENTS and n not in run.record_axes]
    if not sizes and not angles:
        named = next((f"; or name records: run.plot({name!r})" for name in run.records), "")
        raise ValueError(
            "plot draws 'risk', 'loss' and alignments, and none was recorded; got "
            f"{', '.join(run.records) or 'no records'}; simulate with record=('loss', 'risk')"
            f"{named}"
        )
    return [[name] for name in sizes] + ([angles] if angles else [])


def _title(run: Trajectory, group: Sequence[str]) -> str:
    title = group[0] if len(group) == 1 and group[0] not in ALIGNMENTS else "alignment"
    title = group[0] if group[0] in run.record_axes else title
    unit = run.units[group[0]]
    return title if unit == "1" else f"{title} [{unit}]"


def _lines(run: Trajectory, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Label and values (T, seeds) for each swept setting, and each entry of a vector."""
    values = run[name].cpu().numpy()
    for index in np.ndindex(run.status.shape[:-1]):
        where = [
            f"{axis}={run.coordinates[axis][j]}" for axis, j in zip(run.axes, index, strict=False)
        ]
        picked = values[(slice(None), *index)]
        if name not in run.record_axes:
            yield ", ".join([name, *where]), picked
            continue
        for entry in range(picked.shape[-1]):
            yield ", ".join([f"{run.record_axes[name]} {entry}", *where]), picked[..., entry]


def _predicted(run: Trajectory) -> dict[str, list[tuple[str, float]]]:
    """Record -> labels and heights of dashed lines; nothing outside the linear model."""
    plan = run.resume.plan
    if plan is None or type(plan.given) is not LinearProblem or plan.given.noise is not None:
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
