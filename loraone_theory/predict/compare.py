"""Every method at its own best step size, beside what is predicted of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loraone_theory import methods, storage
from loraone_theory.core import validate
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods import METHODS, Method
from loraone_theory.predict.ahead import outlook
from loraone_theory.predict.curves import TARGET, distance, measured_rate, reached, resolution
from loraone_theory.predict.tuning import GRID, tune_step, whole_loss
from loraone_theory.problems.base import Problem, facts
from loraone_theory.problems.trials import trial_seeds

# Told the method and the number of steps done.
Report = Callable[[str, int], object]


@dataclass(frozen=True, eq=False)
class Row:
    """One method. Arrays hold one value per seed; NaN where not predicted or not reached.

    The distance to the floor is √(L_t − floor), in the metric of the training loss; rates and
    steps are those of it.

    Args:
        method: its name.
        learning_rate: η; NaN where the method is not defined on the problem.
        chosen_by: "prediction" or "grid".
        initial_error: ‖E₀‖_F.
        floor: the least training loss, predicted.
        reached: the training loss at the end.
        predicted_rate: the factor per step near the solution at η.
        rate: the factor per step, measured over the later half of the way to `TARGET`.
        steps: until the distance is `TARGET` times that at t = 0; NaN too where the dtype does not
            resolve that beside the floor, and a note says so; 0 of a run that begins at the floor.
        loss: (T + 1, seeds).
        error: ‖E_t‖_F, (T + 1, seeds).
        status: how it ended, in words.
        notes: what is missing or taken for granted in the predictions.
    """

    method: str
    learning_rate: float
    chosen_by: str
    initial_error: np.ndarray
    floor: np.ndarray
    reached: np.ndarray
    predicted_rate: np.ndarray
    rate: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    status: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Comparison:
    """The rows, and what they were made with."""

    rows: tuple[Row, ...]
    config: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Every array as <method>.<name> to `path` (.npz), all else to the .json beside it."""
        arrays, about = {}, []
        for row in self.rows:
            plain = {}
            for name, value in vars(row).items():
                if isinstance(value, np.ndarray):
                    arrays[f"{row.method}.{name}"] = value
                else:
                    odd = isinstance(value, float) and not math.isfinite(value)
                    plain[name] = None if odd else value
            about.append(plain)
        whole = {"config": self.config, "rows": about, **storage.provenance()}
        storage.save_pair(path, arrays, whole)


def compare(
    problem: Problem,
    *,
    rank: int,
    steps: int,
    seeds: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    tune: bool = False,
    grid: Sequence[float] = GRID,
    report: Report = lambda name, done: None,
) -> Comparison:
    """Run methods on one problem, each at its own best step size.

    The step size is the predicted `best_step` (the least over the instances) where there is one
    and no run diverges or ends farther from the floor than it began; else, and with `tune` always,
    the best of `grid` on these same seeds: no run diverges, most of them reach `TARGET`, in the
    fewest steps, or else end nearest to the floor. All of the grid runs in one batch.

    Args:
        problem: linear, with label noise or not, ReLU or matrix sensing, batch (seeds,) or ().
        rank: r.
        steps: T of every run.
        seeds: one trial per seed, for tuning and for the numbers reported.
        names: methods of `METHODS`; None for all but the flows.
        tune: take the grid for every method.
        grid: step sizes.
        report: called now and then.

    Returns:
        A Comparison with one row per method. A method that is not defined on the problem has a
        row of NaN whose status says why.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=20, k=15, true_rank=2, samples=400)
    >>> row = compare(problem, rank=2, steps=100, names=["lora-one"]).rows[0]
    >>> row.chosen_by, bool(row.steps[0] < 40)
    ('prediction', True)
    """
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    drawn = trial_seeds(problem, seeds)
    values = validate.numbers("grid", list(grid), positive=True)
    wanted = methods.stepping() if names is None else _known(names)
    length = validate.integer("steps", steps, least=2)
    setting = _Setting(problem, rank, length, drawn, tune, values, report)
    rows = []
    for name in wanted:
        try:
            rows.append(_row(setting, name))
        except ValueError as error:  # ranks or starts that this method has no meaning for
            rows.append(_undefined(name, setting, f"undefined: {error}"))
    config: dict[str, Any] = {"d": problem.d, "k": problem.k}
    config |= {"true_rank": facts(problem).true_rank}
    config |= {"rank": rank, "steps": length, "seeds": drawn, "tune": tune}
    config |= {"grid": values, "target": TARGET}
    return Comparison(tuple(rows), config)


def _known(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(validate.choice("method", name, METHODS) for name in names))


@dataclass(frozen=True, eq=False)
class _Setting:
    problem: Problem
    rank: int
    steps: int
    seeds: tuple[int, ...]
    tune: bool
    grid: list[float]
    report: Report

    def shared(self, method: Method) -> dict[str, Any]:
        """What a run and a search have in common."""
        return {
            "rank": self.rank,
            "steps": self.steps,
            "seeds": self.seeds,
            "record": ("loss", "error"),
            "progress": lambda done: self.report(method.name, done),
        }

    def run(self, method: Method, learning_rate: float) -> Trajectory:
        damping = method.facts.damping
        return simulate(
            self.problem,
            method,
            learning_rate=learning_rate,
            damping=damping,
            **self.shared(method),
        )


def _row(setting: _Setting, name: str) -> Row:
    # AdaLoRA's budget ends half-way, so that the final rank has time to converge.
    hyper = {"total_steps": max(1, setting.steps // 2)} if name == "adalora" else {}
    method = methods.get(METHODS[name](**hyper), setting.rank)
    ahead = outlook(setting.problem, method, rank=setting.rank, seeds=setting.seeds)
    floor, best, notes = ahead.floor, ahead.best_step, ahead.notes
    eta, chosen_by, run = best, "prediction", None
    whole = whole_loss(setting.problem)
    if not setting.tune and math.isfinite(best):
        run = setting.run(method, best)
        loss = run["loss"].cpu().numpy()
        excess = distance(loss, floor, whole)
        if run.diverged.any() or not (excess[-1] <= np.maximum(excess[0], TARGET)).all():
            notes += (f"fails at the predicted best step {best:.3g} from this start; grid instead",)
            run = None
    chosen: int | slice = slice(None)
    if run is None:
        shared = setting.shared(method)
        tuned = tune_step(setting.problem, method, grid=setting.grid, floor=floor, **shared)
        run, chosen = tuned.run, tuned.index
        eta, chosen_by = tuned.learning_rate, "grid"
    loss, error = (run[key].cpu().numpy()[:, chosen] for key in ("loss", "error"))
    states = run.status[chosen].flat
    excess, resolved = distance(loss, floor, whole), resolution(loss, floor, whole)
    if (resolved > TARGET).any():
        notes += (
            f"not resolved: {loss.dtype} tells distances from the floor down to "
            f"{resolved.max():.1e} of the first, not to {TARGET:g}",
        )
    failed = sum(state.outcome is Outcome.DIVERGED for state in states)
    steps = reached(excess)
    count = int(np.isfinite(steps).sum())
    status = "converged" if count == len(steps) else f"{count} of {len(steps)} converged"
    return Row(
        method=name,
        learning_rate=eta,
        chosen_by=chosen_by,
        initial_error=error[0],
        floor=floor,
        reached=loss[-1],
        predicted_rate=ahead.loss_rate(eta),
        rate=measured_rate(excess, resolved),
        steps=steps,
        loss=loss,
        error=error,
        status=f"{failed} of {len(steps)} diverged" if failed else status,
        notes=notes,
    )


def _undefined(name: str, setting: _Setting, why: str) -> Row:
    nothing = np.full(len(setting.seeds), math.nan)
    curve = np.full((setting.steps + 1, len(setting.seeds)), math.nan)
    six = (nothing, nothing, nothing, nothing, nothing, nothing)
    return Row(name, math.nan, "", *six, curve, curve, why)
