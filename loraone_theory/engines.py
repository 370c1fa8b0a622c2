"""Who does the jobs: this process, processes on this machine, or a cluster, by Dask's distributed.

Answers do not depend on it. Jobs are handed out a few at a time, so that a million of them take no
more memory than a few.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, TypeVar

from loraone_theory.core import validate
from loraone_theory.core.extras import extra

Job = TypeVar("Job")
Work = Callable[..., Any]
# Jobs that are handed out for each worker, so that none waits for the next one.
AHEAD = 3
CONNECT_SECONDS = 10
# What Dask's defaults cost in processes of this machine: memory that goes back to the system after
# every tensor comes again page by page, and a thread that looks at the stack or at the clock a
# hundred times a second takes the interpreter's lock from the one that computes.
SETTINGS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


class Lost(ConnectionError):
    """The cluster, or a worker again and again, was gone before a job was done."""


class Unreachable(Lost, ValueError):
    """Nothing answers at the address of a scheduler."""


class Place(NamedTuple):
    """Where jobs are done.

    Args:
        workers: processes; 1 is this one.
        scheduler: the address of a running cluster, in place of `workers`.
    """

    workers: int = 1
    scheduler: str | None = None


def place(workers: Any = 1, scheduler: Any = None) -> Place:
    """A place from the arguments of a user.

    Raises:
        TypeError, ValueError: no number of workers; both of them; no address.
        MissingExtra: more than this process is asked for, and distributed is not installed.
    """
    validate.integer("workers", workers, least=1)
    if scheduler is None:
        if workers > 1:
            distributed()
        return Place(workers)
    validate.instance("scheduler", scheduler, str, "give its address, such as tcp://10.0.0.1:8786")
    if workers != 1:
        raise ValueError("workers are processes of this machine, and a scheduler has its own; "
                         "leave one out")  # fmt: skip
    if "://" not in scheduler:
        raise ValueError(
            f"scheduler must be an address such as tcp://10.0.0.1:8786; got {scheduler!r}"
        )
    distributed()
    return Place(1, scheduler)


def distributed() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    with extra("sweep", "leave workers and scheduler out: one process does the same"):
        return importlib.import_module("distributed")


@contextlib.contextmanager
def opened(where: Place) -> Iterator[Any]:
    """The place made ready: None for this process, else a client of the cluster.

    What was started here is ended with the block.

    Raises:
        Unreachable: nothing answers at the scheduler's address.
    """
    if where == Place():
        yield None
        return
    library = distributed()
    with contextlib.ExitStack() as stack:
        address: Any = where.scheduler
        if address is None:
            stack.enter_context(_environment_kept())
            address = stack.enter_context(_local(library, where.workers))
        try:
            client = library.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"no scheduler answers at {where.scheduler} ({' '.join(str(error).split())}); "
                "start one with `dask scheduler`, or check the address"
            ) from None
        yield stack.enter_context(client)


def _local(library: Any, workers: int) -> Any:
    """Processes of this machine. An interruption is this one's to handle: they do not see it."""
    with (
        _interruptions_held(),  # threads and processes started meanwhile hold them for ever
        importlib.import_module("dask").config.set(SETTINGS),
    ):
        return library.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a free port, of this machine alone
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """What distributed sets for its workers in this process's environment goes with them."""
    given = importlib.import_module("dask").config.get("distributed.nanny.pre-spawn-environ")
    before = {name: os.environ.get(name) for name in (*given, "PYTHONHASHSEED")}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _interruptions_held() -> Iterator[None]:
    """Ctrl-C during the block is handled after it."""
    if not hasattr(signal, "pthread_sigmask"):  # not a Unix
        yield
        return
    resource_tracker.ensure_running()  # it would let them through where it is started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spread(work: Work, jobs: Iterable[Job], client: Any = None) -> Iterator[tuple[Job, Any]]:
    """(job, work(job)) for each job, as they are done; in order where `client` is None.

    In place of an answer stands a `Lost` where the job's worker was ended again and again.

    Args:
        work: a function; what it raises ends the iteration.
        jobs: taken a few at a time.
        client: of `opened`.

    Raises:
        Lost: the scheduler is gone.
    """
    if client is None:
        for job in jobs:
            yield job, work(job)
        return
    yield from _by_client(work, iter(jobs), client)


def _by_client(work: Work, jobs: Iterator[Job], client: Any) -> Iterator[tuple[Job, Any]]:
    library = distributed()
    with _lost_with(client):
        width = AHEAD * max(1, sum(client.nthreads().values()))
    ours: dict[Any, Job] = {}

    def hand_out(count: int) -> list[Any]:
        made = []
        for job in itertools.islice(jobs, count):
            with _lost_with(client):
                future = client.submit(work, job, pure=False)
            ours[future] = job
            made.append(future)
        return made

    done = library.as_completed(hand_out(width), loop=client.loop)
    try:
        for future in done:
            job = ours.pop(future)
            answer = _answer(library, future, job, client)
            future.release()
            for more in hand_out(1):
                done.add(more)
            yield job, answer
    finally:
        if ours:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.cancel(list(ours), force=True)


def _answer(library: Any, future: Any, job: object, client: Any) -> Any:
    with _lost_with(client, future):
        try:
            return future.result()
        except library.KilledWorker as error:
            said = " ".join(str(error).split())
            return Lost(f"the worker that had {job} was ended again and again ({said})")


@contextlib.contextmanager
def _lost_with(client: Any, future: Any = None) -> Iterator[None]:
    """What the library raises for want of its scheduler is a `Lost`; what a job raised stays.

    A connection breaks at any moment: an answer that is on its way breaks with it, a question finds
    nobody, and a client that has given up refuses to ask.
    """
    try:
        yield
    except Exception as error:
        of_the_job = future is not None and future.status == "error"
        broken = isinstance(error, (CancelledError, TimeoutError, OSError))
        if of_the_job or not (broken or client.status != "running"):
            raise
        raise Lost(
            f"the cluster was lost ({type(error).__name__}); what was finished is kept: run again "
            "to go on"
        ) from None


def all_of(work: Work, jobs: Iterable[Job], where: Place) -> Iterator[tuple[Job, Any]]:
    """What `spread` gives, by a place that is made ready here.

    Raises:
        Lost: the place was lost, or a worker with one of the jobs again and again.
    """
    with opened(where) as client:
        for job, answer in spread(work, jobs, client):
            if isinstance(answer, Lost):
                raise answer
            yield job, answer
