"""What the subcommands share."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

DONE, FAILED, BAD_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130


def console() -> Console:
    """Standard output; plain text, and wide enough not to fold tables, where it is a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=120)


def complain(message: object) -> None:
    """One line on standard error."""
    print(f"error: {message}", file=sys.stderr)


def check_target(path: Path | None, *suffixes: str) -> None:
    """A file to write ends in one of `suffixes` and lies in a folder that exists."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} must exist; create it first")
