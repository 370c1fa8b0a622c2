"""`loraone sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from loraone_theory import engines
from loraone_theory.cli.common import check_folder, check_target, console, progress_bar
from loraone_theory.cli.guard import DONE, FAILED
from loraone_theory.core import memory
from loraone_theory.sweeps import Sweep, cost
from loraone_theory.sweeps.run import shard_of

SHOWN = 5  # reasons that are printed


@dataclass(frozen=True)
class SweepCommand:
    """Run the sweep of a TOML file; a sweep that was interrupted goes on.

    Cells are files in a folder, each written whole; those that are there are not computed again.
    Exit code 1 if some cells could not be computed, with the reason; runs that diverge are
    results. docs/sweeps.md says what a file holds and how clusters take part.
    """

    file: tyro.conf.Positional[Path]
    """The sweep: tables fixed, axes, together and measure."""
    folder: Path | None = None
    """Where the cells are kept; by default the file's path without .toml."""
    workers: int = 1
    """Processes on this machine; more than one need the extra "sweep"."""
    scheduler: str | None = None
    """The address of a running Dask cluster, such as tcp://10.0.0.1:8786, in their place."""
    shard: str | None = None
    """One part of the cells, such as 3/16, for job arrays; all parts share the folder."""
    csv: Path | None = None
    """Write one row for each run to this file when done."""
    dry_run: bool = False
    """Only say how many cells there are, and what they are expected to take."""
    status: bool = False
    """Only say how many cells are done, failed and left; every file is checked."""
    delete: tuple[str, ...] | None = None
    """Only remove finished cells: all, failed, stale (of former versions of the file), or such as
    rank=2,3 method=lora, those that meet every filter."""

    def run(self) -> int:
        """Run, or only say what there is."""
        if self.dry_run + self.status + (self.delete is not None) > 1:
            raise ValueError("--dry-run, --status and --delete exclude each other; give one")
        if self.csv is not None and (self.dry_run or self.delete is not None):
            raise ValueError(
                "--csv writes what was computed; leave it out with --dry-run, --delete"
            )
        check_target(self.csv, ".csv")
        engines.place(self.workers, self.scheduler)
        shard_of(self.shard)
        sweep = Sweep.of_file(self.file, self.folder)
        screen = console()
        if self.dry_run:
            return _forecast(sweep, screen)
        if self.delete is not None:
            gone = sweep.delete(self.delete)
            screen.print(f"{gone} cell{'s' * (gone != 1)} removed from {sweep.folder}")
            return DONE
        if not self.status:
            check_folder(sweep.folder)
            code = self._compute(sweep, screen)
        else:
            code = DONE
            _status(sweep, screen)
        if self.csv is not None:
            sweep.to_csv(self.csv)
        return code

    def _compute(self, sweep: Sweep, screen: Console) -> int:
        shown = [0]
        with progress_bar(screen, 0, what="cells") as bar:

            def report(done: int, total: int) -> None:
                bar(f"{done} of {total}", done - shown[0], total)
                shown[0] = done

            done = sweep.run(
                workers=self.workers, scheduler=self.scheduler, shard=self.shard, report=report
            )
        screen.print(
            f"{done.computed} cells computed, {done.found} found, {done.failed} failed, "
            f"{len(done.lost)} lost, in {sweep.folder}"
        )
        for reason in dict.fromkeys(done.lost[:SHOWN]):
            screen.print(f"  lost: {reason}; run again to compute it")
        if done.failed:
            _reasons(sweep, screen)
        return FAILED if done.failed or done.lost else DONE


def _forecast(sweep: Sweep, screen: Console) -> int:
    found = sweep.forecast()
    sizes = ", ".join(f"{name} {size}" for name, size in sweep.spec.sizes.items())
    screen.print(f"{found.runs} runs ({sizes or 'one'}) in {found.cells} cells")
    screen.print(f"expected: {cost.in_words(found.seconds)} on one core, by the cost model")
    screen.print(f"memory: {memory.in_words(found.memory)} for each worker, besides the libraries")
    return DONE


def _status(sweep: Sweep, screen: Console) -> None:
    found = sweep.status()
    screen.print(
        f"{found.cells} cells: {found.done - found.failed} done, {found.failed} failed, "
        f"{found.left} left"
    )
    if found.damaged or found.stale:
        screen.print(f"{found.damaged} damaged, {found.stale} of former versions of the sweep")
    screen.print(
        f"computed in {cost.in_words(found.measured)}; the rest is expected to take "
        f"{cost.in_words(found.expected)} on one core"
    )
    if found.failed:
        _reasons(sweep, screen)


def _reasons(sweep: Sweep, screen: Console) -> None:
    reasons = sorted(sweep.status().reasons.items(), key=lambda pair: -pair[1])
    for reason, count in reasons[:SHOWN]:
        screen.print(f"  {count} failed: {reason}")
