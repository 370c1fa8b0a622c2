"""Who does the jobs: the same answers from this process, from two, and from a cluster."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from loraone_theory import engines
from loraone_theory.cli.guard import BAD_ARGUMENTS, FAILED, explained

dask = pytest.importorskip("dask", reason="the extra sweep is not installed")
# Before a test sets what it brings: what is set first is taken away whole, its defaults with it.
pytest.importorskip("distributed", reason="the extra sweep is not installed")


def work(name: str) -> str:
    """A job for the processes below."""
    if name == "raises":
        raise ArithmeticError("no such thing")
    if name == "waits":
        raise TimeoutError("of the job's own")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def kept_environment() -> dict[str, str]:
    """Without what the import of distributed leaves there, under its newer or its older name."""
    left = ("__DASK_PARENT_PID", "DASK_PARENT")
    return {name: value for name, value in os.environ.items() if name not in left}


def test_processes_hand_back_what_they_make() -> None:
    """Jobs are taken a few at a time, what a job raises comes through, and nothing is left."""
    taken: list[str] = []
    environment = kept_environment()

    def jobs() -> Iterator[str]:
        for i in range(100):
            taken.append(f"job {i}")
            yield taken[-1]

    with engines.opened(engines.place(2)) as client:
        found = engines.spread(work, jobs(), client)
        job, answer = next(found)
        assert answer == job.upper()
        assert len(taken) <= 2 * engines.AHEAD + 1
        rest = dict(found)
        assert len(rest) == 99
        assert all(answer == job.upper() for job, answer in rest.items())
        assert dict(engines.spread(work, [], client)) == {}
        with pytest.raises(ArithmeticError, match="no such thing"):
            list(engines.spread(work, ["a", "raises"], client))
        with pytest.raises(TimeoutError, match="of the job's own"):
            list(engines.spread(work, ["waits"], client))
        assert dict(engines.spread(work, ["a"], client)) == {"a": "A"}
    assert kept_environment() == environment


@pytest.mark.slow
def test_a_job_that_ends_its_worker_is_given_up() -> None:
    """After a few tries (here one), and the others are done."""
    once = {"distributed.scheduler.allowed-failures": 0}
    with dask.config.set(once), engines.opened(engines.place(2)) as client:
        found = dict(engines.spread(work, ["a", "dies", "b"], client))
    assert (found["a"], found["b"]) == ("A", "B")
    assert isinstance(found["dies"], engines.Lost)
    assert "the worker that had dies was ended again and again" in str(found["dies"])


class Gone:
    """A client whose scheduler goes away when it is asked for the `nth` time."""

    def __init__(self, real: Any, error: Exception, nth: int) -> None:
        self.real, self.error, self.left = real, error, nth
        self.status = "running"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def ask(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.status = "closed"
            raise self.error

    def nthreads(self) -> Any:
        self.ask()
        return self.real.nthreads()

    def submit(self, *args: Any, **options: Any) -> Any:
        self.ask()
        future = self.real.submit(*args, **options)
        result = future.result

        def asked() -> Any:
            self.ask()
            return result()

        future.result = asked
        return future


def test_a_scheduler_that_goes_is_one_error_whenever_it_goes() -> None:
    """While a question is under way, a job or an answer; and whatever the library says then."""
    comm = pytest.importorskip("distributed.comm", reason="the extra sweep is not installed")
    said = [comm.CommClosedError("in <TCP>"), CancelledError("k"), RuntimeError("is closed")]
    jobs = list("abc")
    with engines.opened(engines.place(2)) as real:
        questions = 1 + 2 * len(jobs)
        for error, nth in itertools.product(said, range(questions)):
            with pytest.raises(engines.Lost, match=r"the cluster was lost \(.*run again to go on"):
                list(engines.spread(work, jobs, Gone(real, error, nth)))
        assert len(list(engines.spread(work, jobs, Gone(real, said[0], questions)))) == len(jobs)


def surroundings(_: object) -> tuple[str | None, str | None, bool]:
    profiled = bool(dask.config.get("distributed.worker.profile.enabled"))
    return os.environ.get("MALLOC_TRIM_THRESHOLD_"), os.environ.get("OMP_NUM_THREADS"), profiled


@pytest.mark.slow
def test_workers_keep_their_memory_and_their_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that slows a computation, one thread each; settings of the caller's are his again."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ((_, found),) = engines.all_of(surroundings, [0], engines.place(2))
    assert found == (None, "1", False)
    assert dask.config.get("distributed.worker.profile.enabled")


def test_an_address_without_a_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(engines.Unreachable, match=r"no scheduler answers at tcp://127.0.0.1:1") as e,
        engines.opened(engines.place(1, "tcp://127.0.0.1:1")),
    ):
        pass
    assert explained(e.value) == (str(e.value), BAD_ARGUMENTS)
    assert explained(engines.Lost("gone")) == ("gone", FAILED)


@pytest.mark.slow
def test_nothing_is_left_when_the_client_is_killed() -> None:
    """The processes of a client that is killed end too."""
    code = (
        "import time\nfrom loraone_theory import engines\n"
        "if __name__ == '__main__':\n"
        "    with engines.opened(engines.place(2)) as client:\n"
        "        print(*client.run(__import__('os').getpid).values(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    workers = [int(word) for word in client.stdout.readline().split()]
    assert len(workers) == 2
    client.kill()
    client.wait()
    client.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    """Whether there is one, and it is no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
