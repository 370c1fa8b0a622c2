"""One cell computed, on one thread, whoever does it."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from loraone_theory.core.extras import MissingExtra
from loraone_theory.core.status import Outcome
from loraone_theory.core.threads import one_thread
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.base import Problem
from loraone_theory.sweeps.cells import Cell
from loraone_theory.sweeps.keywords import RUN, STEP
from loraone_theory.sweeps.pilot import best_rate
from loraone_theory.sweeps.version import numerics_version

# The outcome of a run as a small integer, and that of one that is not there.
CODES = {outcome: code for code, outcome in enumerate(Outcome)}
ABSENT = -1
# Faults of the machine, not of the configuration: a cell that meets one is not finished.
MACHINE = (MemoryError, OSError, MissingExtra)


class Computed(NamedTuple):
    """What became of a cell.

    Args:
        arrays: name -> values (*runs, ...), with a curve the recorded steps; none where it failed.
        failure: why it failed, or "".
        seconds: that it took.
        version: of the numerics that computed it.
        finished: False where the machine is at fault, and another one may do better.
    """

    arrays: dict[str, np.ndarray]
    failure: str
    seconds: float
    version: str
    finished: bool = True


def compute(cell: Cell) -> Computed:
    """The cell's numbers; a failure is an answer."""
    start = time.perf_counter()
    arrays: dict[str, np.ndarray] = {}
    failure, finished = "", True
    try:
        with one_thread(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a run that diverges says so in its outcome
            arrays = _numbers(cell)
    except Exception as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        finished = not isinstance(error, MACHINE) and "allocate" not in failure  # torch's words
    version = numerics_version(cell.engine)
    return Computed(arrays, failure, time.perf_counter() - start, version, finished)


def _numbers(cell: Cell) -> dict[str, np.ndarray]:
    settings, given = cell.settings, cell.problem()

    def draw(seeds: tuple[int, ...]) -> Problem:
        problem: Problem = settings["sampler"](**given, seeds=seeds)
        return problem

    method = cell.method().at(settings["rank"])
    run = {name: settings[name] for name in RUN if name in settings and name != "method"}
    run.setdefault("damping", method.facts.damping)
    asked = run.pop("learning_rate")
    rates = asked if isinstance(asked, list) else [asked]
    if cell.seeks and any(isinstance(rate, str) for rate in rates):
        found = best_rate(draw, method, run)
        rates = [found if isinstance(rate, str) else rate for rate in rates]
    run["learning_rate"] = rates if isinstance(asked, list) else rates[0]
    rows = {each.name: each.record for each in cell.measures.values()}
    problem = draw(cell.seeds)
    made = simulate(problem, method, record=tuple(rows.values()), seeds=cell.seeds, **run)
    if made.axes != (*cell.batched, "seed"):
        raise ValueError(
            f"a sampler must return a problem with one instance for each of its seeds; the runs "
            f"have the axes {', '.join(made.axes)}"
        )
    arrays = {name: each.of(made, problem) for name, each in cell.measures.items()}
    arrays |= _endings(made)
    if any(each.is_curve for each in cell.measures.values()):
        arrays[STEP] = np.asarray(made.steps, dtype=np.int64)
    if cell.seeks:
        arrays["used_learning_rate"] = _spread(rates, made, cell)
    return arrays


def _endings(made: Trajectory) -> dict[str, np.ndarray]:
    """How every run ended: the code of its outcome, and the last step with a meaning."""
    codes = [CODES[status.outcome] for status in made.status.flat]
    last = int(made.steps[-1])
    diverged = Outcome.DIVERGED
    at = [s.step if s.outcome is diverged else last for s in made.status.flat]
    shape = made.status.shape
    return {
        "outcome": np.array(codes, dtype=np.int8).reshape(shape),
        "stopped_at": np.array(at, dtype=np.float64).reshape(shape),
    }


def _spread(rates: list[Any], made: Trajectory, cell: Cell) -> np.ndarray:
    """The rate of every run; NaN for schedules."""
    numbers = np.array([np.nan if callable(rate) else rate for rate in rates])
    if "learning_rate" in cell.batched:
        numbers = numbers[:, None]
    return np.broadcast_to(numbers, made.status.shape).copy()
