"""Sweeps: two processes against one, against loops that one would write, and what a cell costs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loraone_theory.bench.base import Row, Setting, benchmark, now, of_pairs, seconds
from loraone_theory.core.threads import one_thread
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.sweeps import Sweep, cost
from loraone_theory.sweeps.cells import Cells
from loraone_theory.sweeps.compute import compute

ETA = 0.2
# Runs of a baseline that are timed in place of all of them.
SHARE = 200


@benchmark("sweep")
def sweep(setting: Setting) -> Iterator[Row]:
    """20,000 runs of 500 steps at d = k = 50, and 300 cells without work in them."""
    sizes = {"d": 50, "k": 50, "true_rank": 4, "samples": 800, "steps": 500, "runs": 20_000}
    if setting.tiny:
        sizes = {"d": 6, "k": 5, "true_rank": 2, "samples": 40, "steps": 5, "runs": 8}
    workers = 1 if setting.tiny else 2
    pairs = 1 if setting.tiny else min(setting.pairs, 3)
    yield _processes({**sizes, "runs": 3 * sizes["runs"]}, workers, pairs)
    yield from _against(sizes, workers, pairs)
    yield _overhead(12 if setting.tiny else 300, workers)


@benchmark("sweep-memory", long=True)
def sweep_memory(setting: Setting) -> Iterator[Row]:
    """100,000 cells without work in them, half an hour: the memory of what hands them out."""
    cells = 40 if setting.tiny else 100_000
    yield _memory("one process", cells, 1)
    if not setting.tiny:
        yield _memory("client of two", cells, 2)


def _processes(sizes: dict[str, Any], workers: int, pairs: int) -> Row:
    """With the start of the processes, in a sweep of a minute or two."""
    with tempfile.TemporaryDirectory() as folder:
        expected = float(cost.of_all(Cells(_of(Path(folder), sizes).spec)).sum())
    theirs, ours = [], []
    for _ in range(pairs):
        theirs.append(seconds(lambda: _run(sizes, 1)))
        ours.append(seconds(lambda: _run(sizes, workers)))
    notes = {"workers": workers, "expected_s": round(expected, 1), **sizes}
    notes["speedup_without_engine"] = round(_limit(max(1, sizes["runs"] // 30), sizes, workers), 2)
    words = "the same sweep by one process"
    return of_pairs("sweep/processes", words, theirs, ours, notes)


def _limit(runs: int, sizes: dict[str, int], workers: int) -> float:
    """How much more `workers` processes do than one, that share nothing but the machine."""
    code = "from loraone_theory.bench import sweep; sweep.take_turns()"
    given = json.dumps({**sizes, "runs": runs})
    with contextlib.ExitStack() as stack:
        each = [stack.enter_context(_talking(code)) for _ in range(workers)]
        for one in each:
            _ask(one, given)
        for one in each:  # all of them are ready
            _answer(one)
        alone, together = [], []
        for _ in range(3):
            _ask(each[0], given)
            alone.append(_answer(each[0]))
            for one in each:
                _ask(one, given)
            together += [_answer(one) for one in each]
    return workers * statistics.median(alone) / statistics.median(together)


def _talking(code: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)


def _ask(process: subprocess.Popen[str], given: str) -> None:
    assert process.stdin is not None
    process.stdin.write(given + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def take_turns() -> None:
    """For each line of sizes that comes in: seconds to compute the cells, without a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            cells = list(Cells(_of(Path(folder), json.loads(line)).spec))
            print(seconds(lambda: [compute(cell) for cell in cells]), flush=True)  # noqa: B023


def _against(sizes: dict[str, int], workers: int, pairs: int) -> Iterator[Row]:
    """Baselines in turn with the sweep, which takes too long to be run for each of them.

    Those that run one by one are timed on some of the runs.
    """
    runs = min(SHARE, sizes["runs"])
    scale = sizes["runs"] / runs
    baselines: dict[str, tuple[str, float, Callable[[], object]]] = {
        "simulate": ("a plain loop over simulate", scale, lambda: _one_by_one(sizes, runs)),
    }
    try:
        joblib = importlib.import_module("joblib")
    except ModuleNotFoundError:  # it comes with the extra "experiments"
        pass
    else:
        words = "joblib over a hand-written loop of torch"
        by_joblib = functools.partial(_by_joblib, joblib, sizes, workers, runs)
        by_joblib()  # its processes are started
        baselines["joblib"] = words, scale, by_joblib
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in baselines}
    for _ in range(pairs):
        ours.append(seconds(lambda: _run(sizes, workers)))
        for name, (_, times, work) in baselines.items():
            theirs[name].append(times * seconds(work, threads=1))
    notes = {"workers": workers, "timed_runs": runs, **sizes}
    for name, (words, _, _) in baselines.items():
        yield of_pairs(f"sweep/{name}", words, theirs[name], ours, notes)


def _of(folder: Path, sizes: dict[str, int]) -> Sweep:
    known = {name: sizes[name] for name in ("d", "k", "true_rank", "samples", "steps")}
    run = {"sampler": "sample_linear", "method": "lora-one", "learning_rate": ETA}
    run |= {"rank": sizes["true_rank"], "every": sizes["steps"]}
    axes = {"seed": range(sizes["runs"])}
    return Sweep(folder, fixed={**known, **run}, axes=axes, measure={"risk": "final"})


def _run(sizes: dict[str, int], workers: int) -> None:
    """All of it, into a folder that goes away, with the start of the processes."""
    with tempfile.TemporaryDirectory() as folder:
        done = _of(Path(folder) / "s", sizes).run(workers=workers)
        if done.failed or done.lost:
            raise RuntimeError(f"the sweep of the benchmark failed: {done}")


def _one_by_one(sizes: dict[str, int], runs: int) -> None:
    given: dict[str, Any] = {n: sizes[n] for n in ("d", "k", "true_rank", "samples")}
    steps, rank = sizes["steps"], sizes["true_rank"]
    for seed in range(runs):
        problem = sample_linear(**given, seeds=(seed,))
        simulate(
            problem, "lora-one", rank=rank, learning_rate=ETA, steps=steps, record=["risk"],
            every=steps,
        )  # fmt: skip


def _by_joblib(joblib: Any, sizes: dict[str, int], workers: int, runs: int) -> None:
    given = tuple(sizes[name] for name in ("d", "k", "true_rank", "samples", "steps"))
    task = joblib.delayed(hand_written)
    joblib.Parallel(n_jobs=workers)(task(seed, *given) for seed in range(runs))


def hand_written(seed: int, d: int, k: int, true_rank: int, samples: int, steps: int) -> float:
    """The risk at the end of one run, as one would write it: LoRA-One over Σ̂."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(samples, d, generator=g, dtype=torch.float64)
    U, V = (
        torch.linalg.qr(torch.randn(n, true_rank, generator=g, dtype=torch.float64)).Q
        for n in (d, k)
    )
    S, target = X.T @ X / samples, U @ V.T
    left, values, right = torch.linalg.svd(S @ target)
    root = values[:true_rank].sqrt()
    A, B = left[:, :true_rank] * root, root[:, None] * right[:true_rank]
    for _ in range(steps):
        M = S @ (A @ B - target)
        A, B = A - ETA * M @ B.T, B - ETA * A.T @ M
    return float(0.5 * (A @ B - target).square().sum())


def _small(folder: Path, cells: int) -> Sweep:
    """Cells with hardly any work in them."""
    fixed: dict[str, Any] = {"sampler": "sample_linear", "d": 3, "k": 2, "true_rank": 1}
    fixed |= {"samples": 5, "method": "lora", "rank": 1, "steps": 1}
    rates = [0.1 + i / cells for i in range(cells)]
    return Sweep(folder, fixed=fixed, together={"learning_rate": rates})


def _overhead(count: int, workers: int) -> Row:
    """Seconds of a cell beyond those that its computation takes."""
    notes: dict[str, Any] = {"cells": count}
    with tempfile.TemporaryDirectory() as place, one_thread():
        cells = list(Cells(_small(Path(place), count).spec))
        alone = [seconds(lambda cell=cell: compute(cell)) for cell in cells]  # type: ignore[misc]
        computing = statistics.median(alone)
        for number in dict.fromkeys((1, workers)):
            moments = _moments(_small(Path(place) / f"{number}", count), number)
            gaps = [b - a for a, b in itertools.pairwise(moments)]
            each = statistics.mean(gaps[len(gaps) // 4 :]) * number
            notes[f"overhead_ms_{number}"] = round(1000 * (each - computing), 2)
    return Row("sweep/overhead", "none", None, computing, notes=notes)


def _moments(made: Sweep, workers: int) -> list[float]:
    """When each of its cells was done."""
    found: list[float] = []
    made.run(workers=workers, report=lambda done, total: found.append(now()))
    return found


def _memory(case: str, cells: int, workers: int) -> Row:
    """The most memory of a process that sees to so many cells, early and at the end."""
    code = (
        "import sys; from loraone_theory.bench import sweep; "
        "sweep.grow(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])"
    )
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-c", code, str(cells), str(workers), folder]
        said: list[str] = []
        took = seconds(lambda: said.append(_said(call)))
    early, late = (float(word) for word in said[0].split())
    row = Row(f"sweep-memory/{case}", "none", None, took)
    return replace(row, notes={"cells": cells, "early_MB": early, "late_MB": late})


def _said(call: list[str]) -> str:
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


def grow(cells: int, workers: int, folder: str) -> None:
    """Run so many cells; print the most memory in MB after a tenth of them, and at the end."""
    made, early = _small(Path(folder) / "s", cells), [0.0]

    def report(done: int, total: int) -> None:
        if done == max(1, total // 10):
            early[0] = _peak()

    made.run(workers=workers, report=report)
    print(early[0], _peak())


def _peak() -> float:
    """Of this process alone: what `resource` says began with its parent's."""
    status = Path("/proc/self/status")
    if not status.is_file():  # not Linux
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)
