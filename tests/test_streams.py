"""Whatever is behind standard output, every command finishes and what it writes is there."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loraone_theory.cli import COMMANDS, main
from loraone_theory.cli.guard import guarded

SMALL = ["--d", "8", "--k", "6", "--rank", "2", "--true-rank", "1", "--samples", "40"]
VERDICTS = str(Path(__file__).resolve().parent.parent / "records" / "verdicts.json")

SWEEP = """
[fixed]
sampler = "sample_linear"
d = 6
k = 5
true_rank = 1
samples = 30
method = "lora-one"
rank = 1
learning_rate = 0.1
steps = 3
"""
# Command -> arguments, and the files that they write.
CALLS: dict[str, tuple[list[str], set[str]]] = {
    "bench": (["relu", "--tiny", "--pairs", "1", "--json", "b.json"], {"b.json"}),
    "compare": (
        ["lora-one", "lora-ga", *SMALL, "--steps", "40", "--save", "c.npz", "--plot", "c.png"],
        {"c.npz", "c.json", "c.png"},
    ),
    "describe": (["lora-one"], set()),
    "doctor": ([], set()),
    "explore": (["--script", "lab.py"], {"lab.py"}),
    "list": ([], set()),
    "report": (["--json", VERDICTS, "--out", "checks.md"], {"checks.md"}),
    "reproduce": (
        ["fig_good", "--experiments", "scripts", "--out", "out"],
        {"out/fig_good.npz", "out/fig_good.json", "out/fig_good.png", "out/fig_good.pdf"},
    ),
    "simulate": (
        ["lora-one", *SMALL, "--steps", "5", "--save", "s.npz", "--plot", "s.pdf"],
        {"s.npz", "s.pdf"},
    ),
    "sweep": (
        ["small.toml", "--folder", "kept", "--csv", "s.csv"],
        {"s.csv", "kept/sweep.json", "kept/locks", "kept/cells/*"},
    ),
    "verify-seeds": (
        ["lora-one/linear/one-step", "--seeds", "2", "--json", "s.json", "--page", "s.md"],
        {"s.json", "s.md"},
    ),
    "verify": (["3.4", "--smoke", "--json", "v.json"], {"v.json"}),
}


SCRIPT = '''
"""One point."""
import numpy as np

from loraone_theory import experiment, plotting

SMOKE = experiment.Config()
Config = experiment.Config


def run(config, progress):
    print("η = 1")
    return {"y": np.ones(1)}


def plot(data, config):
    return {"fig_good": plotting.figure(height=1)[0]}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "fig_good.py").write_text(SCRIPT)
    (tmp_path / "small.toml").write_text(SWEEP)
    return tmp_path


def test_every_command_is_here() -> None:
    assert set(CALLS) == set(COMMANDS)


def closed_pipe() -> io.TextIOWrapper:
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(open(writing, "wb"), encoding="utf-8", write_through=True)


def full_disk() -> io.TextIOWrapper:
    return io.TextIOWrapper(open("/dev/full", "wb"), encoding="utf-8", write_through=True)


def encoded(encoding: str) -> Callable[[], io.TextIOWrapper]:
    return lambda: io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def closed() -> io.TextIOWrapper:
    made = io.TextIOWrapper(io.BytesIO())
    made.close()
    return made


# What stands behind standard output -> the exit code then.
STREAMS: dict[str, tuple[Callable[[], io.TextIOWrapper | None], int]] = {
    "closed pipe": (closed_pipe, 0),
    "full disk": (full_disk, 1),
    "ascii": (encoded("ascii"), 0),
    "latin-1": (encoded("latin-1"), 0),
    "closed": (closed, 1),
    "none": (lambda: None, 0),
}


@contextmanager
def standard_output(stream: io.TextIOWrapper | None) -> Iterator[None]:
    before, sys.stdout = sys.stdout, stream  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = before
        try:
            if stream is not None:
                stream.close()
        except OSError:  # the buffer of a broken stream cannot be flushed
            pass


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("command", CALLS)
def test_a_command_needs_no_output(
    command: str,
    stream: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if stream == "full disk" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.chdir(folder)
    arguments, written = CALLS[command]
    make, code = STREAMS[stream]
    with standard_output(make()):
        assert main([command, *arguments]) == code
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found = {re.sub("cells/.*", "cells/*", name) for name in found}  # named by hashes
    assert found == written | {"scripts/fig_good.py", "small.toml"}
    errors = capsys.readouterr().err
    assert errors.count("\n") == (1 if code else 0), errors
    assert errors == "" or "what was to be written, was" in errors


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize("stream", ["closed pipe", "ascii"])
def test_help_needs_no_output(command: str, stream: str) -> None:
    with standard_output(STREAMS[stream][0]()), pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0


def test_what_ascii_lacks_is_printed_as_question_marks() -> None:
    stream = encoded("ascii")()
    assert stream is not None
    raw = stream.buffer
    with standard_output(stream):
        assert guarded(lambda: print("η = 1", "\udcff") or 0) == 0
        assert raw.getvalue() == b"? = 1 ?\n"  # type: ignore[attr-defined]


# The same with a process of its own, whose interpreter flushes once more when it ends.
@pytest.mark.slow
@pytest.mark.parametrize("target", ["| true", "> /dev/full", ">&-", "2>&- | true"])
def test_a_process_ends_quietly(target: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m loraone_theory list {target}"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.returncode == (1 if "full" in target else 0)
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    assert done.stderr.count("\n") == (1 if "full" in target else 0)


class TestGuard:
    """Errors that a user can cause are one line; the codes tell them apart."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ValueError("a\nb"), 2),
            (TypeError("a"), 2),
            (FileNotFoundError(2, "No such file", "x"), 2),
            (PermissionError("x may not be written"), 2),
            (OSError(28, "No space left on device"), 1),
            (PermissionError(13, "Permission denied", "x"), 1),
            (MemoryError(), 1),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte"), 1),
            (ModuleNotFoundError("No module named 'peft'"), 1),
            (KeyboardInterrupt(), 130),
        ],
        ids=lambda e: f"{type(e).__name__}",
    )
    def test_one_line(
        self, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def work() -> int:
            raise error

        assert guarded(work) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err

    def test_a_fault_of_the_library_keeps_its_traceback(self) -> None:
        def work() -> int:
            raise ZeroDivisionError("ours")

        with pytest.raises(ZeroDivisionError):
            guarded(work)

    def test_streams_come_back(self) -> None:
        before = sys.stdout, sys.stderr
        assert guarded(lambda: 7) == 7
        assert (sys.stdout, sys.stderr) == before


def test_an_interrupted_import_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "loraone_theory", "list"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("name", ["o[/x]", "o[bold]", ":smile:", "o\\[x"])
def test_names_are_printed_as_they_are(
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["reproduce", "fig_good", "--experiments", "scripts", "--out", name]) == 0
    assert f"written to {name}" in capsys.readouterr().out
    assert main(["report", "--json", VERDICTS, "--out", f"{name.replace('/', '')}.md"]) == 0
    assert f"wrote {name.replace('/', '')}.md" in capsys.readouterr().out
    assert main(["simulate", name]) == 2
    assert "method must be one of" in capsys.readouterr().err
