"""Commands in forks of one interpreter that has imported everything, killed when told to.

    with Forks(folder) as forks:
        forks.run(["simulate", ...], after=0.1)

The interpreter is a process of its own with one thread, so that the forks have no locks and no
thread pools of the tests' process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

TEMPORARY = ".loraone-*"
TICK = 2e-4  # seconds between two looks
LONGEST = 120.0  # seconds that no command takes


class Ended(NamedTuple):
    """The exit code of a command, None where it was killed, and the seconds it took."""

    code: int | None
    seconds: float


class Forks:
    """The interpreter that forks; its commands run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder.with_name(f"{folder.name}.said")

    def __enter__(self) -> Forks:
        self._server = subprocess.Popen(
            [sys.executable, __file__, self.said],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def run(
        self,
        arguments: Sequence[object],
        after: float | None = None,
        writing: str | None = None,
    ) -> Ended:
        """Run a command to its end, or kill it `after` so many seconds.

        Where `writing` names a folder, the seconds count from when a new temporary file is in it.
        """
        words = [str(word) for word in arguments]
        asked = {"arguments": words, "after": after, "writing": writing}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Ended(*json.loads(self._server.stdout.readline()))


def _forked(arguments: list[str], after: float | None, writing: str | None, said: str) -> Ended:
    from loraone_theory.cli import main

    start = time.perf_counter()
    left_behind = _temporary(writing)
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setpgid(0, 0)
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = main(arguments)
        finally:
            os._exit(code)
    os.setpgid(child, child)  # here too: it may be killed before it does so itself
    waited_from = start if writing is None else None
    while time.perf_counter() - start < LONGEST:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Ended(os.waitstatus_to_exitcode(status), time.perf_counter() - start)
        if waited_from is None and _temporary(writing) - left_behind:
            waited_from = time.perf_counter()
        waited = 0.0 if waited_from is None else time.perf_counter() - waited_from
        if after is not None and waited_from is not None and waited >= after:
            break
        time.sleep(TICK)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Ended(None, time.perf_counter() - start)


def _temporary(folder: str | None) -> set[Path]:
    return set() if folder is None else set(Path(folder).glob(TEMPORARY))


def serve(said: str) -> None:
    """Answer the requests on standard input until it is closed."""
    import loraone_theory.bench
    import loraone_theory.claims
    import loraone_theory.cli.commands
    import loraone_theory.plotting  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        ended = _forked(asked["arguments"], asked["after"], asked["writing"], said)
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
