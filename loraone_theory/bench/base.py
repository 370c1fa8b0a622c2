"""Timing in pairs, the rows it gives, and the registry of benchmarks."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.core.extras import MissingExtra, Unavailable


@dataclass(frozen=True)
class Setting:
    """How much to measure: `tiny` sizes are for trying the code out, not for figures."""

    tiny: bool = False
    pairs: int = 5

    def __post_init__(self) -> None:
        validate.flag("tiny", self.tiny)
        validate.integer("pairs", self.pairs, least=1)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        name: benchmark and case.
        baseline: what it is compared with.
        baseline_s: median seconds of the baseline; None where there is none.
        ours_s: median seconds.
        ratio: median over the pairs of baseline/ours; None without a baseline.
        ratio_spread: smallest and largest of those.
        notes: further numbers of the benchmark.
    """

    name: str
    baseline: str
    baseline_s: float | None
    ours_s: float
    ratio: float | None = None
    ratio_spread: tuple[float, float] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


Benchmark = Callable[[Setting], Iterator[Row]]
# Name -> a benchmark, put there by `benchmark`.
BENCHMARKS: dict[str, Benchmark] = {}


# What takes fewer seconds than this is timed at once again, and that counts.
SHORT = 1.0
# Those that run only where they are named: each takes longer than all the others together.
LONG: set[str] = set()


def benchmark(name: str, *, long: bool = False) -> Callable[[Benchmark], Benchmark]:
    """Register a benchmark under `name`; its docstring's first line describes it.

    A `long` one is run only where it is named.
    """

    def add(function: Benchmark) -> Benchmark:
        BENCHMARKS[name] = function
        if long:
            LONG.add(name)
        return function

    return add


def seconds(work: Callable[[], object], *, times: int = 1, threads: int | None = None) -> float:
    """Mean seconds of `times` calls of `work`, unwarmed; a card has done its work by then.

    Raises:
        TypeError, ValueError: no function, `times` or `threads` below one.
    """
    work = validate.function("work", work)
    times = validate.integer("times", times, least=1)
    before = torch.get_num_threads()
    torch.set_num_threads(
        before if threads is None else validate.integer("threads", threads, least=1)
    )
    try:
        start = now()
        for _ in range(times):
            work()
        return (now() - start) / times
    finally:
        torch.set_num_threads(before)


def warm_seconds(work: Callable[[], object], *, threads: int | None = None) -> float:
    """`seconds`, of a second time where the first is below SHORT.

    So that what is short does not pay for what the other one, which may have run for many seconds,
    has driven out of caches and memory.
    """
    first = seconds(work, threads=threads)
    return first if first >= SHORT else seconds(work, threads=threads)


def now() -> float:
    """Seconds on a clock that only differs; a card has done its work by then."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_pairs(
    name: str,
    baseline: str,
    theirs: Callable[[], object],
    ours: Callable[[], object],
    *,
    pairs: int,
    threads: int | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    **notes: Any,
) -> Row:
    """Time the two in alternation, so that both see the same machine; ours is run once before.

    The caller warms the baseline up, which is often too long to run for nothing. `scale`
    multiplies the seconds of each, for example to give them per step.
    """
    ours()
    baselines, mine = [], []
    for _ in range(pairs):
        baselines.append(warm_seconds(theirs, threads=threads) * scale[0])
        mine.append(warm_seconds(ours, threads=threads) * scale[1])
    return of_pairs(name, baseline, baselines, mine, notes)


def of_pairs(
    name: str, baseline: str, theirs: list[float], ours: list[float], notes: dict[str, Any]
) -> Row:
    """The row of seconds that were taken in alternation: medians, and the spread of the ratio."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return Row(
        name,
        baseline,
        statistics.median(theirs),
        statistics.median(ours),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        notes | {"pairs": len(ratios)},
    )


def alone(name: str, work: Callable[[], object], *, repeats: int, **notes: Any) -> Row:
    """Median seconds of `work`, without a baseline."""
    times = [seconds(work) for _ in range(repeats)]
    return Row(name, "none", None, statistics.median(times), notes=notes | {"repeats": repeats})


def run(
    names: Sequence[str] = (),
    *,
    setting: Setting | None = None,
    json: str | Path | None = None,
    report: Callable[[Row], object] | None = None,
) -> list[Row]:
    """Run benchmarks by name (by default all but those of LONG), in order, and report each row.

    With `json`, rows of other benchmarks already in the file are kept and those run now replaced.

    Of all of them those are left out, with a warning, that lack an optional part or a card.

    Raises:
        ValueError: an unknown name.
        MissingExtra: a named one lacks an optional part.
        Unavailable: a named one needs what this machine does not have.
    """
    for name in validate.sequence("names", names, "names"):
        validate.choice("benchmark", name, BENCHMARKS)
    setting = Setting() if setting is None else validate.instance("setting", setting, Setting)
    if report is not None:
        validate.function("report", report)
    target = None if json is None else storage.target(json, ".json")
    if target is not None:
        stored(target)
    rows: list[Row] = []
    done: set[str] = set()
    for name in names or [each for each in BENCHMARKS if each not in LONG]:
        try:
            for row in BENCHMARKS[name](setting):
                rows.append(row)
                if target is not None:
                    _merge(target, rows, done)
                if report is not None:
                    report(row)
        except (MissingExtra, Unavailable) as error:
            if names:
                raise
            warnings.warn(f"benchmark {name!r} is left out: {error}", stacklevel=2)
            continue
        done.add(name)
        if target is not None:
            _merge(target, rows, done)
    return rows


def stored(path: Path) -> dict[str, Any]:
    """What `run` stored at `path`; no rows where there is no such file.

    Raises:
        storage.DamagedFile: another kind of file, or a damaged one.
    """
    path = storage.as_path(path)
    if not path.exists():
        return {"rows": []}
    found = storage.load_json(path)
    with storage.reading(path, "what `loraone bench --json` wrote"):
        for row in found["rows"]:
            Row(**row).name.split("/")
        return dict(found)


def _merge(path: Path, rows: list[Row], done: set[str]) -> None:
    """Old rows go where a new one has their name, or all of their benchmark are done anew."""
    new = {row.name: asdict(row) for row in rows}
    kept = [
        row
        for row in stored(path)["rows"]
        if row["name"] not in new and row["name"].split("/")[0] not in done
    ]
    whole = {"rows": kept + list(new.values()), "made_with": storage.provenance()}
    storage.save_json(path, whole)
