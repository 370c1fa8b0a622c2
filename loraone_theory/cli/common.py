"""What the subcommands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

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


@contextmanager
def progress_bar(screen: Console, total: int, what: str = "claims") -> Iterator:
    """What is done out of `total`, on a terminal; gives a function of what has been done."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=total)

        def done(name: str, count: int = 1, of: int = total) -> None:
            bar.update(task, advance=count, total=of, description=f"done: {name}")

        yield done


def print_tables(screen: Console, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Each table under its title, a row for each name with what is said of it."""
    for title, rows in tables.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None)
        table.show_header = False
        for row in rows.items():
            table.add_row(*row)
        screen.print(table)
        screen.print()
