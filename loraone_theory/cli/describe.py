"""`loraone describe`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from loraone_theory.cli.common import Name, console
from loraone_theory.cli.guard import DONE
from loraone_theory.cli.registries import Entry, entries


@dataclass(frozen=True)
class Describe:
    """Say what a method, rule, problem, claim, experiment ... is: formula, defaults, source."""

    name: Name
    """A name that `loraone list` shows; a claim's id may need quotes."""

    def run(self) -> int:
        """Print it; where kinds share a name, each of them."""
        out = console()
        for entry in entries(self.name):
            out.print(f"{entry.registry.kind} {entry.name}")
            out.print()
            out.print(entry.text)
            out.print()
            out.print(_table(entry))
            out.print()
        return DONE


def _table(entry: Entry) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        **entry.facts,
        **entry.parameters,
        "use": entry.registry.how.replace("NAME", entry.name),
        "source": entry.source,
    }
    for row in rows.items():
        table.add_row(*row)
    return table
