"""The table of commands. A subcommand is a dataclass in a file of its own and a row here."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import tyro

from loraone_theory.cli import common


class Command(Protocol):
    """A dataclass whose fields are the command's arguments and whose docstring is its help."""

    def run(self) -> int:
        """Do it; the exit code. Files are written before anything is printed."""


class Place(NamedTuple):
    """Where a command is: a file beside this one, and its class there."""

    file: str
    name: str

    def load(self) -> type[Command]:
        """The class."""
        module = importlib.import_module(f"loraone_theory.cli.{self.file}")
        return common.plainly(getattr(module, self.name))

    def stand_in(self) -> type:
        """A command of the same name and help without arguments, its file read but not imported."""
        source = Path(__file__).with_name(f"{self.file}.py").read_text(encoding="utf-8")
        (code,) = (
            node
            for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef) and node.name == self.name
        )
        made = dataclasses.make_dataclass(self.name, [])
        made.__doc__ = ast.get_docstring(code)
        return made


PLACES = {
    "compare": Place("compare", "Compare"),
    "bench": Place("bench", "Bench"),
    "describe": Place("describe", "Describe"),
    "doctor": Place("doctor", "Doctor"),
    "explore": Place("explore", "Explore"),
    "list": Place("listing", "List"),
    "report": Place("verify", "Report"),
    "reproduce": Place("reproduce", "Reproduce"),
    "simulate": Place("simulate", "Simulate"),
    "sweep": Place("sweep", "SweepCommand"),
    "verify": Place("verify", "Verify"),
    "verify-seeds": Place("verify_seeds", "VerifySeeds"),
}
# Name -> its class; all of them are imported when this is first asked for.
COMMANDS: dict[str, type[Command]]


def __getattr__(name: str) -> Any:
    if name == "COMMANDS":
        return _all()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _all() -> dict[str, type[Command]]:
    return {name: place.load() for name, place in PLACES.items()}


def needed(arguments: Sequence[str]) -> dict[str, type]:
    """The commands, with stand-ins for those whose arguments are not asked about.

    What a command imports takes longer than to say what it is: every claim, for one.
    """
    first = arguments[0] if arguments else "--help"
    if first not in (*PLACES, "--help", "-h"):
        return dict(_all())
    return {
        name: place.load() if name == first else place.stand_in() for name, place in PLACES.items()
    }


def run(arguments: Sequence[str]) -> int:
    """Parse the arguments and run the command that they name."""
    choices: list[Any] = [
        Annotated[command, tyro.conf.subcommand(name)]
        for name, command in needed(arguments).items()
    ]
    command: Command = tyro.cli(
        functools.reduce(operator.or_, choices),
        prog="loraone",
        description="Verify, by computation, the theory of low-rank fine-tuning.",
        args=arguments,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.DisallowNone,
        ),
    )
    return command.run()
