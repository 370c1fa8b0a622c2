"""Tests run on a copy of the repository that holds a mutant, those that meet the mutant first."""

from __future__ import annotations

import compileall
import contextlib
import importlib
import json
import os
import py_compile
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "loraone_theory"
COPIED = (
    PACKAGE, "tests", "experiments", "docs", "records", "examples", "benchmarks", "pyproject.toml",
    "README.md", "CONTRIBUTING.md", "paper_checks.md",
)  # fmt: skip
# Imported once, before the forks; nothing of the package itself.
IMPORTED_BEFORE = (
    "torch", "numpy", "scipy.linalg", "scipy.stats", "scipy.sparse.linalg", "scipy.optimize",
    "scipy.integrate", "matplotlib.pyplot", "hypothesis", "mpmath",
)  # fmt: skip
SAID = "said.txt"  # what the tests printed, in the copy
MEMORY = 16 << 30  # bytes of address space: a mutant that allocates without bound dies
SLOWER = 5.0  # a mutant may take this many times as long as the original ...
STARTUP = 30.0  # ... and this many seconds
LONGEST = 3600.0  # seconds for the tests of all files without a mutant


class Test(NamedTuple):
    """What a test took, and the functions of the package that it called, "file::function"."""

    seconds: float
    called: frozenset[str]


class Watch:
    """A pytest plugin that notes what each test takes and calls."""

    def __init__(self, package: Path) -> None:
        self.package = f"{package.resolve()}{os.sep}"
        self.seen: dict[str, tuple[float, list[str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around one test with its fixtures."""
        codes: dict[int, CodeType] = {}

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                codes.setdefault(id(frame.f_code), frame.f_code)

        start = time.perf_counter()
        sys.setprofile(note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            inside = (code for code in codes.values() if code.co_filename.startswith(self.package))
            called = sorted(
                f"{code.co_filename.removeprefix(self.package)}::{function(code.co_qualname)}"
                for code in inside
            )
            self.seen[item.nodeid] = (time.perf_counter() - start, called)


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
        """Whether the tests pass on the copy as it is, and in how many seconds."""
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._run(list(tests), seen)
        while time.perf_counter() - start < limit:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0, time.perf_counter() - start
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False, time.perf_counter() - start

    def _run(self, tests: list[str], seen: Path | None) -> None:
        code = 3
        try:
            os.setsid()
            os.chdir(self.folder)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            said = os.open(self.folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            ours, theirs = ([str(place), str(place / "tests")] for place in (self.folder, ROOT))
            sys.path[:] = [*ours, *(place for place in sys.path if place not in theirs)]
            os.environ["PYTHONPATH"] = str(self.folder)
            watch = Watch(self.folder / PACKAGE)
            options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--assert=plain"]
            code = int(pytest.main([*options, *tests], plugins=[watch] if seen else []))
            if seen is not None:
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
    """Which tests to run on a mutant."""

    def __init__(self, shadow: Shadow, tests: Iterable[str]) -> None:
        self.shadow = shadow
        self.known = shadow.watched(sorted({f"tests/{test}" for test in tests}))

    def of(self, mutant: Any) -> list[str]:
        """Those tests of the mutant's file that call what was changed, quick ones first.

        All of them where none is known to: a class or module that is changed outside functions.
        """
        files = {os.path.normpath(f"tests/{test}").partition("::")[0] for test in mutant.tests}
        mine = [name for name in self.known if name.partition("::")[0] in files]
        meeting = [name for name in mine if mutant.where and self._meets(name, mutant)]
        return sorted(meeting or mine, key=lambda name: self.known[name].seconds)

    def _meets(self, name: str, mutant: Any) -> bool:
        """Whether the test calls the changed function, or any of the changed class."""
        inside = f"{mutant.file}::{mutant.where}"
        return any(c == inside or c.startswith(f"{inside}.") for c in self.known[name].called)

    def kills(self, mutant: Any) -> tuple[bool, float]:
        """Whether a test fails on the mutant, and in how many seconds that was known."""
        tests = self.of(mutant)
        limit = STARTUP + SLOWER * sum(self.known[name].seconds for name in tests)
        with self.shadow.holding(mutant.file, mutant.source):
            passed, taken = self.shadow.passes(tests, limit)
        return not passed, taken


def import_before() -> None:
    """What every test needs and no mutant is in, once for all forks."""
    for module in IMPORTED_BEFORE:
        importlib.import_module(module)
