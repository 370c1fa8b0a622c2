"""`loraone verify-seeds`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from loraone_theory import storage
from loraone_theory.claims import sweep
from loraone_theory.claims.choice import chosen
from loraone_theory.cli.common import Names, check_target, console, progress_bar
from loraone_theory.cli.guard import DONE, FAILED


@dataclass(frozen=True)
class VerifySeeds:
    """Judge the claims at many master seeds: which verdicts turn over, which mutants escape.

    Exit code 1 if a verdict turns over, or a mutant escapes at more than one seed in twenty, or a
    claim raises an error. At the smallest sizes, unless --full. An interrupted run goes on with the
    rows in --json, and rows of other claims in it stay, so that the tables may hold claims of
    either size.
    """

    claims: Names = ()
    """Which claims; without any, all of them that do not take long."""
    paper: str | None = None
    """Without names: the claims of one paper, for example lora-one."""
    seeds: int = sweep.SEEDS
    """Master seeds: 0, 1, ..."""
    full: bool = False
    """Full sizes, in place of the smallest."""
    workers: int = 1
    """Processes that judge side by side."""
    json: Path | None = None
    """Write the rows to this JSON file as they come, and take over those that are in it."""
    page: Path | None = None
    """Write the tables to this Markdown file, of all rows in --json if there is one."""

    def run(self) -> int:
        """Judge, print what is to be looked at, write the files."""
        check_target(self.json, ".json")
        check_target(self.page, ".md")
        screen = console()
        wanted = chosen(self.claims, paper=self.paper)
        made: list[sweep.Row] = []
        with progress_bar(screen, len(wanted) * max(self.seeds, 0)) as advance:

            def note(row: sweep.Row) -> None:
                made.append(row)
                advance(f"{row.id} at {row.seed}")

            counts = sweep.sweep(
                wanted,
                seeds=self.seeds,
                smoke=not self.full,
                workers=self.workers,
                json=self.json,
                report=note,
            )
        if self.page is not None:
            rows = made if self.json is None else sweep.load(self.json)
            storage.save_text(self.page, sweep.page(rows))
        table = Table(box=None, pad_edge=False)
        for heading in ("claim", "expected", "as expected", "open", "turned", "mutant found out"):
            table.add_column(
                heading, justify="left" if heading in ("claim", "expected") else "right"
            )
        for t in counts:
            if t.turned or not t.powerful:
                numbers = (t.verdicts[t.expected], t.open, t.turned, t.found_out)
                table.add_row(t.id, t.expected, *map(str, numbers), style="bold red")
        if table.row_count:
            screen.print(table)
        turned, judged = sum(t.turned for t in counts), sum(t.verdicts.total() for t in counts)
        screen.print(
            f"{turned} of {judged} verdicts turned; {sum(t.powerful for t in counts)} of "
            f"{len(counts)} mutants found out at {sweep.POWER:.0%} of the seeds"
        )
        return FAILED if turned or not all(t.powerful for t in counts) else DONE
