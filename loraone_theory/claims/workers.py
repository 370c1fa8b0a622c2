"""Claims judged by several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

Work = Callable[..., Any]
Job = TypeVar("Job")


class Worker(NamedTuple):
    """A process and the end of the pipe to it that is ours."""

    process: BaseProcess
    pipe: Connection


def spread(
    work: Work, names: Sequence[Job], options: dict[str, Any], workers: int
) -> Iterator[tuple[Job, Any]]:
    """(name, work(name, **options)) for each name, as they come, from so many processes.

    The processes are started afresh (nothing of this one is copied into them) and are ended when
    the iteration is left, for whatever reason.

    Args:
        work: a function of a module, which the processes import.
        names: handed out in this order; strings, or what else pickles.
        options: with what pickles.
        workers: how many processes at most.

    Raises:
        RuntimeError: one of them raised an exception, or ended.
    """
    waiting = list(reversed(names))
    busy: dict[Connection, tuple[Worker, Job]] = {}
    started: list[Worker] = []
    try:
        for _ in range(min(workers, len(waiting))):
            started.append(_start(work, options))
            _hand_out(started[-1], waiting, busy)
        while busy:
            for pipe in wait(list(busy)):
                worker, name = busy.pop(pipe)  # type: ignore[call-overload]
                yield name, _answer(worker, name)
                _hand_out(worker, waiting, busy)
    finally:
        for worker in started:
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()


def _start(work: Work, options: dict[str, Any]) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, options), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _hand_out(
    worker: Worker, waiting: list[Job], busy: dict[Connection, tuple[Worker, Job]]
) -> None:
    if waiting:
        name = waiting.pop()
        busy[worker.pipe] = worker, name
        with contextlib.suppress(BrokenPipeError):  # it has ended; reading from it says so
            worker.pipe.send(name)


def _answer(worker: Worker, name: object) -> Any:
    try:
        done, answer = worker.pipe.recv()
    except EOFError:
        worker.process.join()
        raise RuntimeError(
            f"the process that judged {name} ended with exit code {worker.process.exitcode}; what "
            "was finished is kept, and one worker alone shows what happens"
        ) from None
    if not done:
        raise RuntimeError(f"{name} could not be judged: {answer}")
    return answer


def _serve(pipe: Connection, work: Work, options: dict[str, Any]) -> None:
    """Answer names until the pipe closes; an interruption is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            name = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, work(name, **options)
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        pipe.send(answer)
