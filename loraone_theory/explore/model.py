"""Settings run: curves, lines of theory, how the runs ended, and the script that gives the same."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from loraone_theory.core.status import Outcome
from loraone_theory.core.threads import threads_for
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.explore import theory
from loraone_theory.explore.settings import Settings
from loraone_theory.explore.theory import Case, Line

RECORD = ("loss", "risk", "error", "left_alignment", "singular_values")
PATIENCE = 0.15  # seconds after which what has been computed is shown
NO_BEST = "no best step is predicted: it takes the absolute step {eta:g}"
NO_SIZE = "it starts without a Gaussian A, so the initial size does nothing"


@dataclass(frozen=True, eq=False)
class Curves:
    """One method.

    Args:
        method: its name.
        learning_rate: η.
        steps: (T,) the recorded steps.
        records: name -> (T, lines); of a vector a line for each seed and entry.
        lines: what theory says.
        status: how the runs ended, in words, one sentence for each way.
        failed: whether a run diverged or grows.
        notes: what is not predicted, and why.
    """

    method: str
    learning_rate: float
    steps: np.ndarray
    records: dict[str, np.ndarray]
    lines: tuple[Line, ...]
    status: tuple[str, ...]
    failed: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What the page shows.

    Args:
        settings: what was asked for.
        curves: one for each method that has a meaning here.
        refusals: method -> why it has none.
        done: steps that are done, `settings.steps` at the end.
    """

    settings: Settings
    curves: tuple[Curves, ...]
    refusals: dict[str, str]
    done: int


def run(settings: Settings) -> Result:
    """The whole of it.

    Raises:
        ValueError, TypeError: settings that no problem can be made of, in one sentence.
    """
    *_, last = grow(settings, patience=math.inf)
    return last


def grow(settings: Settings, *, patience: float = PATIENCE) -> Iterator[Result]:
    """The same in pieces: whatever is there after about `patience` seconds, and the whole.

    The pieces are of one run, which goes on: the last one has the bits of a run in one piece.
    """
    settings.check()
    with threads_for(0, torch.device("cpu")):  # small matrices: a second thread costs more
        yield from _grow(settings, patience)


def _grow(settings: Settings, patience: float) -> Iterator[Result]:
    started = time.monotonic()
    settings.problem()
    going: dict[str, Trajectory] = {}
    refusals: dict[str, str] = {}
    whole = settings.every * -(-settings.steps // settings.every)
    # Dense sensing chooses how it multiplies by how many steps there are, so it goes in one piece.
    at_once = patience == math.inf or settings.model == "sensing"
    done = settings.steps if at_once else min(settings.steps, whole // 8 or 1)
    done = min(settings.steps, settings.every * -(-done // settings.every))
    for name in dict.fromkeys(settings.methods):
        try:
            going[name] = _start(settings, name, done)
        except ValueError as error:  # ranks or starts that this method has no meaning for
            refusals[name] = str(error)
    while done < settings.steps:
        spent = time.monotonic() - started
        if spent > patience:
            yield _result(settings, going, refusals, done)
        rest = settings.steps - done
        more = rest if spent < patience else min(rest, settings.every * (done // settings.every))
        going = {name: part.extend(more) for name, part in going.items()}
        done += more
    yield _result(settings, going, refusals, done)


def _start(settings: Settings, name: str, steps: int) -> Trajectory:
    method = settings.method(name)
    return simulate(
        settings.problem(),
        method,
        rank=settings.rank,
        learning_rate=settings.step(name),
        steps=steps,
        seeds=settings.seeds,
        damping=method.facts.damping,
        record=RECORD,
        every=settings.every,
    )


def _result(
    settings: Settings, going: dict[str, Trajectory], refusals: dict[str, str], done: int
) -> Result:
    curves = tuple(_curves(settings, name, part) for name, part in going.items())
    return Result(settings, curves, refusals, done)


def _curves(settings: Settings, name: str, part: Trajectory) -> Curves:
    eta, ahead, method = settings.step(name), settings.outlook(name), settings.method(name)
    found, notes = theory.lines(Case(settings, settings.problem(), method, part, ahead, eta))
    if settings.fraction is not None and not 0 < ahead.best_step < math.inf:
        notes.insert(0, NO_BEST.format(eta=eta))
    if settings.init_std is not None and method.init_std is None:
        notes.append(NO_SIZE)
    notes += [f"{record}: not known, it {why}" for record, why in part.reasons.items()]
    bad = (Outcome.DIVERGED, Outcome.GROWING)
    return Curves(
        method=name,
        learning_rate=eta,
        steps=part.steps,
        records={key: _lines(value.cpu().numpy()) for key, value in part.records.items()},
        lines=tuple(found),
        status=tuple(dict.fromkeys(status.message for status in part.status.flat)),
        failed=any(status.outcome in bad for status in part.status.flat),
        notes=tuple(notes),
    )


def _lines(values: np.ndarray) -> np.ndarray:
    """(T, seeds) as it is, (T, seeds, n) as (T, seeds·n)."""
    return values.reshape(len(values), -1)
