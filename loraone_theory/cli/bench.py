"""`loraone bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from loraone_theory import bench, storage
from loraone_theory.bench import page
from loraone_theory.cli.common import Names, check_target, console
from loraone_theory.cli.guard import DONE
from loraone_theory.core import validate


@dataclass(frozen=True)
class Bench:
    """Time the library against baselines in the same run; ratios with their spread.

    Timings are those of this machine and moment; nothing is asserted.
    """

    names: Names = ()
    """Which benchmarks; where none is named, all (about half an hour) but sweep-memory, which
    takes as long again."""
    json: Path | None = None
    """Write the rows to this file; rows of other benchmarks in it are kept."""
    page: Path | None = None
    """Render the rows of --json, and of a gpu.json beside it, into this Markdown file."""
    pairs: int = 5
    """How often baseline and library are timed in alternation."""
    tiny: bool = False
    """Meaningless sizes, to see that everything runs."""

    def run(self) -> int:
        """Time, print as rows come, write."""
        check_target(self.json, ".json")
        check_target(self.page, ".md")
        if self.page is not None and self.json is None:
            raise ValueError("--page renders the rows of --json; give both")
        validate.integer("pairs", self.pairs, least=1)
        screen = console()
        rows = bench.run(
            self.names,
            setting=bench.Setting(tiny=self.tiny, pairs=self.pairs),
            json=self.json,
            report=lambda row: screen.print(f"{row.name}: {page.ratio(row.ratio)}"),
        )
        if self.page is not None and self.json is not None:
            card = self.json.with_name("gpu.json")
            text = page.render(
                bench.stored(self.json),
                source=self.json.as_posix(),
                card=bench.stored(card) if card.exists() else None,
            )
            storage.save_text(self.page, text)
        table = Table(box=None, pad_edge=False)
        for heading in ("benchmark", "baseline", "baseline s", "ours s", "ratio", "spread"):
            table.add_column(heading)
        for row in rows:
            table.add_row(*page.cells(row))
        screen.print(table)
        return DONE
