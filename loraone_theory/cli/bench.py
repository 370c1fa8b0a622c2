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
    render_only: bool = False
    """Time nothing: render the rows that are in --json into --page."""

    def run(self) -> int:
        """Time, print as rows come, write."""
        check_target(self.json, ".json")
        check_target(self.page, ".md")
        if self.page is not None and self.json is None:
            raise ValueError("--page renders the rows of --json; give both")
        validate.integer("pairs", self.pairs, least=1)
        if self.render_only:
            return self._render_only()
        screen = console()
        rows = bench.run(
            self.names,
            setting=bench.Setting(tiny=self.tiny, pairs=self.pairs),
            json=self.json,
            report=lambda row: screen.print(f"{row.name}: {page.ratio(row.ratio)}"),
        )
        if self.page is not None and self.json is not None:
            _render(self.json, self.page)
        table = Table(box=None, pad_edge=False)
        for heading in ("benchmark", "baseline", "baseline s", "ours s", "ratio", "spread"):
            table.add_column(heading)
        for row in rows:
            table.add_row(*page.cells(row))
        screen.print(table)
        return DONE

    def _render_only(self) -> int:
        if self.names or self.tiny:
            raise ValueError("--render-only times nothing; leave benchmarks and --tiny out")
        if self.json is None or self.page is None:
            raise ValueError("--render-only renders the rows of --json into --page; give both")
        if not bench.stored(self.json)["rows"]:
            raise ValueError(
                f"{self.json} has no rows to render; leave --render-only out to time them"
            )
        _render(self.json, self.page)
        return DONE


def _render(rows: Path, target: Path) -> None:
    card = rows.with_name("gpu.json")
    text = page.render(
        bench.stored(rows),
        source=rows.as_posix(),
        card=bench.stored(card) if card.exists() else None,
    )
    storage.save_text(target, text)
