"""The step size at which a method does best on a problem, by a search over a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.names import MethodName
from loraone_theory.core.shown import InTable
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods import Method
from loraone_theory.predict.curves import TARGET, distance, reached, resolution
from loraone_theory.problems.base import Problem, check_problem, fact
from loraone_theory.problems.trials import instance_count, trial_seeds

GRID = tuple(2.0**power for power in range(-9, 2))


@dataclass(frozen=True, eq=False, repr=False)
class Tuned(InTable):
    """What `tune_step` found.

    Args:
        learning_rate: the best of the grid.
        index: its place in the grid, the first axis of `run`.
        steps: (grid, ...) the steps to the target, NaN where it was not reached.
        run: all of the grid in one batch.
    """

    learning_rate: float
    index: int
    steps: np.ndarray
    run: Trajectory

    @property
    def status(self) -> np.ndarray:
        """How the runs at the best step size ended; where all of the grid diverges, so do they."""
        return self.run.status[self.index]

    def __repr__(self) -> str:
        count, whole = np.isfinite(self.steps[self.index]).sum(), self.steps[self.index].size
        return (
            f"Tuned(learning_rate={self.learning_rate}, best of {len(self.steps)}; "
            f"{count} of {whole} runs reach the target)"
        )


def tune_step(
    problem: Problem,
    method: MethodName | str | Method,
    *,
    rank: int,
    steps: int,
    seeds: Sequence[int] | None = None,
    grid: Sequence[float] = GRID,
    floor: float | Tensor | np.ndarray = 0.0,
    target: float = TARGET,
    record: Sequence[str | Record] = ("loss",),
    progress: Callable[[int], object] | None = None,
) -> Tuned:
    """The step size of a grid at which a method does best; all of the grid runs in one batch.

    With the distance √((L_t − floor)/(L_0 − floor)), the best one is that where no run diverges,
    most runs come to `target`, in the fewest steps on average, or else the farthest run ends
    nearest to the floor. A run that begins at the floor is there at step 0. A distance that the
    dtype does not resolve beside the floor is not reached; the one that it does takes its place in
    the choice.

    Args:
        problem: any problem.
        method: a name in `METHODS`, or a Method.
        rank: r.
        steps: T of every run.
        seeds: as for `simulate`.
        grid: step sizes > 0.
        floor: the least training loss, a number or one for each run (..., seeds), for example from
            `predict.floor`; NaN counts as 0.
        target: > 0.
        record: what else the runs record.
        progress: as for `simulate`.

    Raises:
        TypeError, ValueError: as `simulate`.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=20, k=15, true_rank=2, samples=400, seeds=(0, 1))
    >>> tune_step(problem, "lora-one", rank=2, steps=150, grid=(0.1, 0.4, 8.0))
    Tuned(learning_rate=0.4, best of 3; 2 of 2 runs reach the target)
    """
    values = validate.numbers("grid", validate.sequence("grid", grid), positive=True)
    goal = validate.number("target", target, positive=True)
    wanted = validate.sequence("record", record, "names and records")
    problem = check_problem(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    drawn = trial_seeds(problem, seeds)
    last = max(len(drawn), instance_count(problem))
    least = _least(floor, (*problem.batch_shape[:-1], last))
    run = simulate(
        problem,
        method,
        rank=rank,
        learning_rate=values,
        steps=steps,
        seeds=drawn,
        damping=methods.get(method, rank).facts.damping,
        record=("loss", *(row for row in wanted if row != "loss")),
        progress=progress,
    )
    loss, whole = run["loss"].cpu().numpy(), whole_loss(problem)
    excess = distance(loss, least, whole)
    index = best(excess, np.maximum(goal, resolution(loss, least, whole)))
    return Tuned(values[index], index, reached(excess, goal), run)


def whole_loss(problem: Problem) -> np.ndarray | float:
    """The training loss before anything is learned, (...); NaN where asking would draw noise."""
    if fact(problem, "reveals"):
        return math.nan
    like = problem.like
    nothing = Factors(like.new_zeros(problem.d, 1), like.new_zeros(1, problem.k))
    return problem.loss(nothing).detach().cpu().numpy()


def _least(floor: float | Tensor | np.ndarray, trials: tuple[int, ...]) -> np.ndarray:
    """The floor as an array that broadcasts to the trials, 0 where it is NaN."""
    if not isinstance(floor, Tensor | np.ndarray):
        return np.asarray(validate.number("floor", floor))
    known = validate.tensor("floor", floor, least_dims=0, finite=False)
    validate.expands_to("floor", known.shape, trials)
    return np.nan_to_num(known.cpu().numpy())


def best(excess: np.ndarray, target: float | np.ndarray = TARGET) -> int:
    """Index of the grid value that does best, from distances (T + 1, grid, ...).

    The target is one number, or one for each run (grid, ...).
    """
    target = np.broadcast_to(target, excess.shape[1:]).reshape(excess.shape[1], -1)
    excess = excess.reshape(*excess.shape[:2], -1)
    arrived = reached(excess, target)
    with np.errstate(divide="ignore"):
        last = np.log(excess[-1].max(-1))  # infinite where a run has diverged
    last = np.where(np.isnan(last), math.inf, last)
    keys = [
        (np.isposinf(end), np.isnan(steps).sum(), np.nan_to_num(steps).mean(), end)
        for steps, end in zip(arrived, last, strict=True)
    ]
    return min(range(len(keys)), key=lambda i: keys[i])
