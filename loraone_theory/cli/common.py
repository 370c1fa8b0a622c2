"""What the subcommands share."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from loraone_theory import storage


def console() -> Console:
    """Standard output; plain text, and wide enough not to fold tables, where it is a pipe.

    Names and paths are printed as they are: no markup and no emoji are read out of them.
    """
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found = Console(highlight=False, markup=False, emoji=False, width=120)
    return found


def check_target(path: Path | None, *suffixes: str) -> None:
    """A file that is to be written can be, as far as is known before the work, or an error."""
    if path is not None:
        storage.target(path, *suffixes)


def check_folder(path: Path) -> None:
    """A folder that is to be written to, and made if it is absent, can be, or an error."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(f"{path} must be a folder, and {nearest} is a file; name another")
    storage.target(nearest / "probe")
