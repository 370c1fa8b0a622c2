"""What the subcommands share."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loraone_theory.core import files

# Arguments without a flag, as usage texts show them.
Name = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
Names = tyro.conf.Positional[
    Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="")]
]

# Defaults that are no value: what holds without one is told by the help of the option.
NO_VALUE: tuple[Any, ...] = (None, ())

# Cells that the second column of a table has at least, however narrow the terminal is.
LEAST = 20


def plainly(command: type) -> type:
    """The dataclass, whose help shows no default where that is no value.

    Such options take a value or are left out; with `tyro.conf.DisallowNone` their usage has no
    word for none either.
    """
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        hint = hints[field.name]
        if field.default in NO_VALUE and get_origin(hint) is not Annotated:
            about = tyro.conf.arg(help_behavior_hint="", metavar=_several(hint))
            hints[field.name] = Annotated[hint, about]
    command.__annotations__ = hints
    return command


def _several(hint: Any) -> str | None:
    """The usage of an option that takes values of one kind, or may be left out; else None."""
    for kind in get_args(hint):
        if get_origin(kind) is tuple:
            word = get_args(kind)[0].__name__.upper()
            return f"[{word} [{word} ...]]"
    return None


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
        files.target(path, *suffixes)


def check_folder(path: Path) -> None:
    """A folder that is to be written to, and made if it is absent, can be, or an error."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(f"{path} must be a folder, and {nearest} is a file; name another")
    files.target(nearest / "probe")


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
    """Each table under its title, a row for each name with what is said of it.

    Laid out here: rich's tables take a third of a second for as many rows as there are names.
    """
    for title, rows in tables.items():
        width = max((cell_len(name) for name in rows), default=0) + 1
        room = max(screen.width - width, LEAST)
        lines = []
        for name, said in rows.items():
            first, *rest = _wrapped(said, room)
            lines += [
                f"{set_cell_size(name, width)}{first}",
                *(" " * width + more for more in rest),
            ]
        screen.print(title, style="bold")
        screen.print("\n".join(lines), soft_wrap=True)
        screen.print()


def _wrapped(text: str, room: int) -> list[str]:
    """The text in lines of at most so many cells where its words allow it; a line at least."""
    paragraphs = text.splitlines() or [""]
    return [
        line
        for paragraph in paragraphs
        for line in textwrap.wrap(paragraph, room, break_on_hyphens=False) or [""]
    ]
