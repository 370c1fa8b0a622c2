"""`loraone list`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from loraone_theory import experiment
from loraone_theory.cli.common import console
from loraone_theory.cli.guard import DONE
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.methods import METHODS


def first_line(thing: object) -> str:
    """First line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class List:
    """List methods, records and experiments, with a line each."""

    experiments: Path | None = None
    """A folder of experiment scripts, in place of the repository's."""

    def run(self) -> int:
        """Print three tables; outside the repository, two and why there is no third."""
        out = console()
        tables = {
            "methods": {name: first_line(factory) for name, factory in METHODS.items()},
            "records": {name: first_line(record) for name, record in RECORDS.items()},
        }
        if self.experiments is not None or experiment.in_repository():
            scripts = experiment.find(self.experiments)
            tables["experiments"] = {n: experiment.summary(path) for n, path in scripts.items()}
        for title, rows in tables.items():
            table = Table(title=title, title_justify="left", title_style="bold", box=None)
            table.show_header = False
            for row in rows.items():
                table.add_row(*row)
            out.print(table)
            out.print()
        if "experiments" not in tables:
            out.print(
                "experiments: none here; they are scripts of the repository, not of the installed "
                "package (--experiments names a folder of them)"
            )
        return DONE
