"""Sweeps under faults: kills, a full disk, two at once. What is finished stays, bit for bit."""

import errno
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks

import loraone_theory as lt
from loraone_theory import engines
from loraone_theory.core import files
from loraone_theory.sweeps.result import Result
from loraone_theory.sweeps.store import Store

TOML = """
runs_per_cell = 2
[fixed]
sampler = "sample_linear"
d = 24
k = 20
true_rank = 2
samples = 100
method = "lora-one"
steps = 600
learning_rate = 0.1
[axes]
rank = [1, 2, 3]
noise_std = [0.0, 0.1]
seed = { range = [8] }
[measure]
risk = "final"
least = { record = "loss", reduce = "minimum" }
"""
CELLS = 24


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "faults.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def undisturbed(file: Path) -> dict[str, bytes]:
    sweep = lt.Sweep.of_file(file)
    assert sweep.run() == (CELLS, 0, 0, ())
    return bits(sweep)


def bits(sweep: lt.Sweep) -> dict[str, bytes]:
    result = Result(sweep.folder)
    return {name: result.read(each).tobytes() for name, each in result.variables.items()}


def finished(folder: Path) -> dict[str, int]:
    """The cells that are there, with the moment at which each was written."""
    store = Store(folder)
    return {key: store.path(key).stat().st_mtime_ns for key in store if store.whole(key)}


def command(file: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "loraone_theory", "sweep", *map(str, (file, "--folder", folder)),
            *more]  # fmt: skip


@pytest.mark.parametrize("writes", [0, 5])
def test_a_full_disk(
    writes: int,
    file: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run ends with what the system says; what was written before is kept and taken over."""
    sweep = lt.Sweep.of_file(file, tmp_path / "s")
    done, real = [0], Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        done[0] += 1
        if done[0] > writes:
            real(path, content[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(OSError, match="No space left on device"):
            sweep.run()
    before = finished(sweep.folder)
    assert len(before) == writes
    assert sweep.run() == (CELLS - writes, writes, 0, ())
    assert bits(sweep) == undisturbed
    assert before.items() <= finished(sweep.folder).items()


@pytest.mark.slow
def test_killed_clients(file: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Killed again and again at random moments, it ends, and writes no cell twice."""
    folder, rng, kills = tmp_path / "s", random.Random(0), 0
    seen: dict[str, int] = {}
    with Forks(tmp_path) as forks:
        while True:
            after = rng.uniform(0.05, 0.6) * (1 + kills / 10)
            ended = forks.run(["sweep", file, "--folder", folder], after)
            now = finished(folder) if folder.exists() else {}
            assert seen.items() <= now.items()
            seen = now
            if ended.code is not None:
                break
            kills += 1
    assert ended.code == 0, forks.said.read_text()
    assert kills > 0
    assert len(seen) == CELLS
    assert bits(lt.Sweep.of_file(file, folder)) == undisturbed


@pytest.mark.slow
def test_two_clients_on_one_folder(
    file: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """They share the cells, each of which is computed once, and both end."""
    folder = tmp_path / "s"
    clients = [
        subprocess.Popen(command(file, folder), stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [client.communicate(timeout=300)[0] for client in clients]
    assert [client.returncode for client in clients] == [0, 0]
    counts = [re.match(r"(\d+) cells computed, (\d+) found, 0 failed, 0 lost", s) for s in said]
    computed = [int(found[1]) for found in counts if found]
    assert sum(computed) == CELLS
    assert [int(found[2]) for found in counts if found] == [CELLS - n for n in computed]
    assert bits(lt.Sweep.of_file(file, folder)) == undisturbed


@pytest.mark.slow
def test_an_interruption_is_clean(
    file: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Ctrl-C at a terminal reaches every process: one line, 130, nothing runs on, nothing lost."""
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    folder = tmp_path / "s"
    client = subprocess.Popen(
        command(file, folder, "--workers", "2"), stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: folder.exists() and len(list(Store(folder))) >= 2)
    os.killpg(client.pid, signal.SIGINT)
    _, errors = client.communicate(timeout=60)
    assert (client.returncode, errors) == (130, "error: interrupted\n")
    wait_for(lambda: not in_group(client.pid))
    before = finished(folder)
    sweep = lt.Sweep.of_file(file, folder)
    assert sweep.run() == (CELLS - len(before), len(before), 0, ())
    assert bits(sweep) == undisturbed


def wait_for(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def in_group(group: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = place.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its) == group and state != "Z":
            found.append(int(place.parent.name))
    return found


class Cluster:
    """A scheduler and three workers, processes of their own on the loopback address."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        loopback = ("--host", "127.0.0.1", "--no-dashboard")
        self.scheduler = self._dask("scheduler", "--port", str(port), *loopback)
        worker = ("worker", self.address, "--no-nanny", "--nthreads", "1", *loopback)
        self.workers = [self._dask(*worker) for _ in range(3)]

    @staticmethod
    def _dask(*words: str) -> "subprocess.Popen[bytes]":
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words], env=environment, **quiet  # type: ignore[call-overload]
        )  # fmt: skip

    def wait(self) -> None:
        """Until all are there."""
        distributed = engines.distributed()
        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=120)

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    found = Cluster()
    try:
        found.wait()
        yield found
    finally:
        found.end()


@pytest.mark.slow
def test_killed_workers(
    cluster: Cluster,
    file: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of three are killed, at random moments; the third does the rest, and no cell twice."""
    rng, written = random.Random(1), []
    real = Store.write

    def counting(self: Store, key: str, *rest: Any) -> None:
        written.append(key)
        real(self, key, *rest)
        if len(written) in kills:
            cluster.workers[len(written) % 3].kill()

    first = rng.randrange(2, 8)
    kills = {first, first + rng.choice((4, 5, 7, 8))}  # of two different ones
    monkeypatch.setattr(Store, "write", counting)
    sweep = lt.Sweep.of_file(file, tmp_path / "s")
    assert sweep.run(scheduler=cluster.address) == (CELLS, 0, 0, ())
    assert len(written) == len(set(written)) == CELLS
    assert sum(worker.poll() is not None for worker in cluster.workers) == 2
    assert bits(sweep) == undisturbed


@pytest.mark.slow
def test_a_killed_scheduler(
    cluster: Cluster, file: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """One clear error, and what was finished is taken over by the next run."""
    sweep = lt.Sweep.of_file(file, tmp_path / "s")

    def kill() -> None:
        wait_for(lambda: sweep.folder.exists() and len(list(Store(sweep.folder))) >= 3)
        cluster.scheduler.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(engines.Lost, match=r"the cluster was lost.*run again"):
        sweep.run(scheduler=cluster.address)
    killer.join()
    before = finished(sweep.folder)
    assert 3 <= len(before) < CELLS
    assert sweep.run() == (CELLS - len(before), len(before), 0, ())
    assert bits(sweep) == undisturbed
    assert before.items() <= finished(sweep.folder).items()


def test_an_unreachable_scheduler(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.3)
    with pytest.raises(ValueError, match=r"no scheduler answers at tcp://127.0.0.1:1 "):
        lt.Sweep.of_file(file, tmp_path / "s").run(scheduler="tcp://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_that_was_left_is_no_cell(
    file: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """What a killed writer leaves is neither read nor counted."""
    sweep = lt.Sweep.of_file(file, tmp_path / "s")
    sweep.run()
    key = next(iter(Store(sweep.folder)))
    place = Store(sweep.folder).path(key).parent
    (place / f"{files.TEMPORARY}0123456789abcdef").write_bytes(b"half")
    assert len(list(Store(sweep.folder))) == CELLS
    assert bits(sweep) == undisturbed
