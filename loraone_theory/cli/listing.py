"""`loraone list`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from loraone_theory import experiment
from loraone_theory.cli.common import DONE, complain, console
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.methods import METHODS


def first_line(thing: object) -> str:
    """First line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class List:
    """List methods, records and experiments, with a line each."""

    def run(self) -> int:
        """Print three tables."""
        out = console()
        tables = {
            "methods": {name: first_line(factory) for name, factory in METHODS.items()},
            "records": {name: first_line(record) for name, record in RECORDS.items()},
        }
        try:
            scripts = experiment.find()
            tables["experiments"] = {n: experiment.summary(path) for n, path in scripts.items()}
        except FileNotFoundError as error:
            complain(error)
        for title, rows in tables.items():
            table = Table(title=title, title_justify="left", title_style="bold", box=None)
            table.show_header = False
            for row in rows.items():
                table.add_row(*row)
            out.print(table)
            out.print()
        return DONE
