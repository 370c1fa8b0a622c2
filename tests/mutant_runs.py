"""Tests run on a copy of the repository that holds a mutant, those that meet the mutant first."""

from __future__ import annotations

import compileall
import contextlib
import importlib
import itertools
import json
import math
import os
import py_compile
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "loraone_theory"
COPIED = (
    PACKAGE, "tests", "experiments", "figures", "docs", "records", "examples", "benchmarks",
    "pyproject.toml", "README.md", "CONTRIBUTING.md", "paper_checks.md",
)  # fmt: skip
# Imported once, before the forks; nothing of the package itself. tyro looks through the builtins
# when it is imported, where doctests leave their last value as `_`.
IMPORTED_BEFORE = (
    "torch", "numpy", "scipy.linalg", "scipy.stats", "scipy.sparse.linalg", "scipy.optimize",
    "scipy.integrate", "matplotlib.pyplot", "hypothesis", "mpmath", "tyro",
)  # fmt: skip
SAID = "said.txt"  # what the tests printed, in the copy
MEMORY = 16 << 30  # bytes of address space: a mutant that allocates without bound dies
SLOWER = 5.0  # a mutant may compute this many times as long as the original ...
STARTUP = 30.0  # ... and this many seconds
CROWDED = 8.0  # and wait this many times as long for a processor
LONGEST = 3600.0  # seconds for the tests of a file without a mutant
EARLY = 5  # files whose tests run together first: doctests, quick tests, three of corners
# Compiling a changed loop takes longer than its tests, and hides who calls it: as plain Python,
# where numpy warns of what loops compute silently.
PLAIN = {"NUMBA_DISABLE_JIT": "1"}
SILENT = ("overflow", "invalid value", "divide by zero", "underflow")


class Test(NamedTuple):
    """What a test took of a processor, and what it called of the package, "file::function"."""

    seconds: float
    called: frozenset[str]


class Watch:
    """A pytest plugin that notes what each test takes and calls, in Python that is not compiled."""

    def __init__(self, package: Path) -> None:
        self.package = f"{package.resolve()}{os.sep}"
        self.seen: dict[str, tuple[float, list[str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around one test with its fixtures."""
        codes: dict[int, CodeType] = {}

        def note(frame: FrameType, event: str, argument: object) -> None:  # at each call alone
            codes.setdefault(id(frame.f_code), frame.f_code)

        start = _spent()
        sys.settrace(note)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            inside = (code for code in codes.values() if code.co_filename.startswith(self.package))
            called = sorted(
                f"{code.co_filename.removeprefix(self.package)}::{function(code.co_qualname)}"
                for code in inside
            )
            self.seen[item.nodeid] = (_spent() - start, called)


def _spent() -> float:
    """Seconds of a processor so far, of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def function(qualified: str) -> str:
    """The name of the function that a code object is in, as the syntax tree has it.

    >>> function("f.<locals>.g.<locals>.<lambda>")
    'f.g'
    """
    return ".".join(part for part in qualified.split(".") if not part.startswith("<"))


class Shadow:
    """A copy of the repository in which one file at a time is a mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "-co", "--exclude-standard", "--", *COPIED]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.splitlines()):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        # Bound to the text: a mutant of the same size and second is not taken for the original.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / PACKAGE, quiet=2, invalidation_mode=checked)

    def watched(self, tests: Iterable[str]) -> dict[str, Test]:
        """What each test calls, by its pytest name.

        Raises:
            RuntimeError: one fails.
        """
        seen = self.folder / "seen.json"
        passed, _ = self.passes(tests, LONGEST, seen)
        if not passed:
            said = (self.folder / SAID).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the tests must pass without a mutant; they say\n{said[-4000:]}")
        rows = json.loads(seen.read_text(encoding="utf-8"))
        return {name: Test(taken, frozenset(called)) for name, (taken, called) in rows.items()}

    def passes(
        self, tests: Iterable[str], limit: float, seen: Path | None = None
    ) -> tuple[bool, float]:
        """Whether the tests pass on the copy as it is in so many seconds of a processor.

        And in how many seconds of the clock that was known.
        """
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._run(list(tests), limit, seen)
        while time.perf_counter() - start < CROWDED * limit:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0, time.perf_counter() - start
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False, time.perf_counter() - start

    def _run(self, tests: list[str], limit: float, seen: Path | None) -> None:
        code = 3
        try:
            os.setsid()
            os.chdir(self.folder)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
            said = os.open(self.folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            ours, theirs = ([str(place), str(place / "tests")] for place in (self.folder, ROOT))
            sys.path[:] = [*ours, *(place for place in sys.path if place not in theirs)]
            os.environ |= {"PYTHONPATH": str(self.folder), **PLAIN}
            watch = Watch(self.folder / PACKAGE)
            options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--assert=plain"]
            options += [f"-Wignore:{what} encountered:RuntimeWarning" for what in SILENT]
            code = int(pytest.main([*options, *tests], plugins=[watch] if seen else []))
            if seen is not None:
                if code == pytest.ExitCode.NO_TESTS_COLLECTED:  # a file without doctests
                    code = 0
                seen.write_text(json.dumps(watch.seen), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    @contextlib.contextmanager
    def holding(self, file: str, source: str) -> Iterator[None]:
        """A mutant in place of its file."""
        target = self.folder / PACKAGE / file
        original = target.read_text(encoding="utf-8")
        target.write_text(source, encoding="utf-8")
        try:
            yield
        finally:
            target.write_text(original, encoding="utf-8")


class Suite:
    """Which tests to run on a mutant.

    Args:
        shadow: the copy of the repository.
        seconds: of tests for one mutant, at most; tests that would take longer are left out.
        quick: the first part of the tests of a file alone.
    """

    def __init__(self, shadow: Shadow, seconds: float = math.inf, *, quick: bool = False) -> None:
        self.shadow, self.seconds, self.quick = shadow, seconds, quick
        self.known: dict[str, Test] = {}
        self._watched: set[str] = set()

    def watch(self, tests: Sequence[str]) -> None:
        """Run those tests once without a mutant, if that was not done."""
        new = [test for test in tests if test not in self._watched]
        if new:
            self.known |= self.shadow.watched(f"tests/{test}" for test in new)
            self._watched |= set(new)

    def of(self, mutant: Any, tests: Sequence[str], *, meeting: bool = True) -> list[str]:
        """Those of the tests that call what was changed, or all of them; quick ones first."""
        whole = tuple(os.path.normpath(f"tests/{test}") for test in tests)
        inside = (*(f"{test}::" for test in whole), *(f"{test}[" for test in whole))
        mine = [name for name in self.known if name in whole or name.startswith(inside)]
        if meeting:
            mine = [name for name in mine if self._meets(name, mutant)]
        return sorted(mine, key=lambda name: self.known[name].seconds)

    def _meets(self, name: str, mutant: Any) -> bool:
        """Whether the test calls the changed function, or any of the changed class or file."""
        inside = f"{mutant.file}::{mutant.where}"
        within = f"{inside}." if mutant.where else inside
        return any(c == inside or c.startswith(within) for c in self.known[name].called)

    def kills(self, mutant: Any) -> tuple[bool, float]:
        """Whether a test fails on the mutant, and in how many seconds that was known.

        All tests of its file run where none is known to call what was changed.
        """
        by_file = [list(part) for _, part in itertools.groupby(mutant.tests, key=_file)]
        parts = [list(itertools.chain(*by_file[:EARLY])), *([] if self.quick else by_file[EARLY:])]
        taken, left, met = 0.0, self.seconds, False
        for part in parts:
            self.watch(part)
            chosen, left = self._within(self.of(mutant, part), left)
            met = met or bool(chosen)
            failed, more = self._fails(mutant, chosen)
            taken += more
            if failed:
                return True, taken
        if met:
            return False, taken
        everything = self.of(mutant, list(itertools.chain(*parts)), meeting=False)
        chosen, _ = self._within(everything, self.seconds)
        failed, more = self._fails(mutant, chosen)
        return failed, taken + more

    def _within(self, names: list[str], left: float) -> tuple[list[str], float]:
        """As many of the tests as take no longer, and what is left after them."""
        chosen = []
        for name in names:
            if self.known[name].seconds > left:
                break
            left -= self.known[name].seconds
            chosen.append(name)
        return chosen, left

    def _fails(self, mutant: Any, tests: list[str]) -> tuple[bool, float]:
        """Whether one of the tests fails on the mutant, or none ends."""
        if not tests:
            return False, 0.0
        limit = STARTUP + SLOWER * sum(self.known[name].seconds for name in tests)
        with self.shadow.holding(mutant.file, mutant.source):
            passed, taken = self.shadow.passes(tests, limit)
        return not passed, taken


def _file(test: str) -> str:
    return test.partition("::")[0]


def import_before() -> None:
    """What every test needs and no mutant is in, once for all forks."""
    for module in IMPORTED_BEFORE:
        importlib.import_module(module)
