"""kill -9 at random moments: every file is whole, old or new, and pairs belong together."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory import storage

KILLS = 60

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def killed_while(work: Callable[[int], None], after: float) -> None:
    """A child process that does work(0), work(1), ... and is killed `after` so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            for i in range(10**9):
                work(i)
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def written(i: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Arrays of varying size that tell with which settings they were made."""
    return {"a": np.full(200 + 37 * (i % 11), float(i))}, {"i": i}


def test_pairs_are_whole_or_found_out(tmp_path: Path) -> None:
    path, rng = tmp_path / "run.npz", random.Random(0)
    start = 0
    found = absent = 0
    patience = 0.03  # seconds; longer while a busy machine writes nothing in that time
    for kill in range(KILLS):
        first = start

        def work(i: int, first: int = first) -> None:
            storage.save_pair(path, *written(first + i))

        killed_while(work, rng.uniform(0.001, patience))
        start += 1000 * (kill + 1)
        try:
            arrays, about = storage.load_pair(path)
        except FileNotFoundError:  # nothing yet, or killed between the halves
            absent += 1
            patience *= 1 if found else 1.5
            continue
        found += 1
        expected, _ = written(about["i"])
        assert np.array_equal(arrays["a"], expected["a"])
    assert found > 0
    assert found + absent == KILLS
    storage.save_pair(path, *written(7))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "run.npz"]


@pytest.mark.parametrize("kind", ["json", "run", "text"])
def test_files_are_whole(kind: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    problem = lt.sample_linear(d=4, k=3, true_rank=1, samples=20)
    run = lt.simulate(problem, "lora", rank=1, learning_rate=0.1, steps=50)
    path = tmp_path / f"file.{'npz' if kind == 'run' else 'json'}"

    def work(i: int) -> None:
        if kind == "run":
            run.save(path)
        elif kind == "json":
            storage.save_json(path, [i] * 500)
        else:
            storage.save_text(path, f"{i}\n" * 500)

    work(0)
    for _ in range(KILLS // 3):
        killed_while(work, rng.uniform(0.001, 0.03))
        if kind == "run":
            again = lt.Trajectory.load(path)
            assert again["loss"].equal(run["loss"])
        elif kind == "json":
            values = storage.load_json(path)
            assert values == [values[0]] * 500
        else:
            lines = path.read_text().split()
            assert lines == [lines[0]] * 500
    work(0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
