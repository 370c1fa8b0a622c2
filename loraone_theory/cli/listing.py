"""`loraone list`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.table import Table

from loraone_theory import experiment, shipped, storage
from loraone_theory.cli.common import console, print_tables
from loraone_theory.cli.guard import DONE
from loraone_theory.cli.registries import REGISTRIES, Entry, registries


@dataclass(frozen=True)
class List:
    """List everything that has a name, with a line each; `loraone describe NAME` says more."""

    experiments: Path | None = None
    """A folder of experiment scripts, in place of those that come with the package."""
    claims: bool = False
    """Only the claims, with their papers."""

    def run(self) -> int:
        """Print a table for each kind."""
        out = console()
        if self.claims:
            out.print(_claims())
            return DONE
        tables = {
            title: {
                name: Entry(name, registry, thing).line for name, thing in registry.table.items()
            }
            for title, registry in REGISTRIES.items()
        }
        tables["claims"] = _titles()
        scripts = experiment.find(self.experiments)
        tables["experiments"] = {n: experiment.summary(path) for n, path in scripts.items()}
        print_tables(out, tables)
        return DONE


def _titles() -> dict[str, str]:
    """Title of each claim, from the stored verdicts: the claims themselves take long to import.

    Every claim of the package has a verdict there. Installed packs have none, and are imported.
    """
    stored = shipped.folder("records") / "verdicts.json"
    if metadata.entry_points(group=shipped.PACKS) or not stored.is_file():
        return {n: claim.title for n, claim in registries()["claims"].table.items()}
    with storage.reading(stored, "verdicts with their claims' titles"):
        return {r["id"]: r["about"]["title"] for r in storage.load_json(stored)}


def _claims() -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "kind", "expected", "what"):
        table.add_column(heading, no_wrap=heading == "claim")
    for claim in registries()["claims"].table.values():
        long = " (takes long)" if claim.long else ""
        table.add_row(claim.id, claim.kind, claim.expected, f"{claim.title}{long}")
    return table
