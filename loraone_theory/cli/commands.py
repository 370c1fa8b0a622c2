"""The table of commands. A subcommand is a dataclass in a file of its own and a row here."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import tyro

from loraone_theory.cli.bench import Bench
from loraone_theory.cli.compare import Compare
from loraone_theory.cli.describe import Describe
from loraone_theory.cli.doctor import Doctor
from loraone_theory.cli.explore import Explore
from loraone_theory.cli.listing import List
from loraone_theory.cli.reproduce import Reproduce
from loraone_theory.cli.simulate import Simulate
from loraone_theory.cli.sweep import SweepCommand
from loraone_theory.cli.verify import Report, Verify
from loraone_theory.cli.verify_seeds import VerifySeeds


class Command(Protocol):
    """A dataclass whose fields are the command's arguments and whose docstring is its help."""

    def run(self) -> int:
        """Do it; the exit code. Files are written before anything is printed."""


COMMANDS: dict[str, type[Command]] = {
    "compare": Compare,
    "bench": Bench,
    "describe": Describe,
    "doctor": Doctor,
    "explore": Explore,
    "list": List,
    "report": Report,
    "reproduce": Reproduce,
    "simulate": Simulate,
    "sweep": SweepCommand,
    "verify": Verify,
    "verify-seeds": VerifySeeds,
}


def run(arguments: Sequence[str]) -> int:
    """Parse the arguments and run the command that they name."""
    choices: list[Any] = [
        Annotated[command, tyro.conf.subcommand(name)] for name, command in COMMANDS.items()
    ]
    command: Command = tyro.cli(
        functools.reduce(operator.or_, choices),
        prog="loraone",
        description="Verify, by computation, the theory of low-rank fine-tuning.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    return command.run()
