"""The `loraone` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loraone_theory.cli.guard import guarded

COMMANDS: dict[str, Any]  # the table of `cli.commands`, imported when it is first asked for


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 1 a run failed or diverged, 2 bad arguments, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        # Imported here, so that an interruption of the imports is answered like any other.
        code: int = importlib.import_module("loraone_theory.cli.commands").run(given)
        return code

    return guarded(work)


def script(path: str | Path, arguments: Sequence[str] | None = None) -> int:
    """The command line of one experiment: every field of its Config is an option."""
    given = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        reproduce = importlib.import_module("loraone_theory.cli.reproduce")
        code: int = reproduce.script(path, given)
        return code

    return guarded(work)


def __getattr__(name: str) -> Any:
    if name == "COMMANDS":
        return importlib.import_module("loraone_theory.cli.commands").COMMANDS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
