"""`loraone verify` and `loraone report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from loraone_theory import shipped, storage
from loraone_theory.claims import Finding, report, verdict
from loraone_theory.claims.choice import chosen
from loraone_theory.claims.packs import library
from loraone_theory.claims.run import verify_all
from loraone_theory.claims.verdict import Verdict
from loraone_theory.cli.common import Names, check_folder, check_target, console, progress_bar
from loraone_theory.cli.guard import DONE, FAILED

VERDICTS = Path("records/verdicts.json")
PARTIAL = ".partial.json"
REPORT = Path("paper_checks.md")


@dataclass(frozen=True)
class Verify:
    """Judge the paper's claims by computation; exit code 1 if one comes out unexpectedly.

    A claim that is known to be violated is expected to be: if it stops being violated, that too
    gives exit code 1, and so does a claim that raises an error or gives evidence that cannot be
    judged: it ends the run and is named, and what was finished is kept. Without names every claim
    is judged that does not take long, in a few minutes (the seconds of each are in
    records/verdicts.json); --long judges the others; --smoke takes about a minute and may leave a
    claim INCONCLUSIVE.
    """

    claims: Names = ()
    """Which claims, by id as `loraone list --claims` shows them, for example
    lora-one/theorem-3.1; without any, all of them that do not take long."""
    paper: str | None = None
    """Without names: the claims of one paper, for example lora-one."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", help_behavior_hint="")] = None
    """A Python file with claims of one's own; without names these alone are judged."""
    smoke: bool = False
    """The smallest sizes."""
    long: bool = False
    """Without names: the claims that take long, and these alone."""
    trials: int | None = None
    """Draws for each claim, in place of its own number."""
    confidence: float = 0.99
    """Confidence of intervals and bounds."""
    seed: int = 0
    """Master seed; every claim draws its own seeds from it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute: with cuda, the claims that say they can be; no file is written then."""
    dtype: Literal["float64", "float32"] = "float64"
    """In float32, the claims that say they have a meaning in it, with tolerances of that dtype."""
    workers: int = 1
    """Processes that judge side by side, with the extra "sweep"; the verdicts do not depend on
    their number."""
    scheduler: str | None = None
    """The address of a running Dask cluster, such as tcp://10.0.0.1:8786, in their place."""
    draws: Path | None = None
    """Write what each draw gave to this folder, a file for each claim."""
    json: Path | None = None
    """Write the verdicts to this JSON file, in place of those of the same claims in it; an
    interrupted run goes on from where it was."""

    def run(self) -> int:
        """Judge, print the table, write the file."""
        if self.json is not None and self.json.name.endswith(PARTIAL):
            raise ValueError(f"{self.json} is named like the progress of a run; name another file")
        check_target(self.json, ".json")
        screen = console()
        if self.draws is not None:
            check_folder(self.draws)
        chosen_by: dict[str, Any] = {"paper": self.paper, "long": self.long, "source": self.source}
        everything = chosen(self.claims, **chosen_by)
        place: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        wanted = chosen(self.claims, **chosen_by, **place)
        verdicts: list[Verdict] = []
        with progress_bar(screen, len(wanted)) as advance:

            def seen(found: Verdict) -> None:
                verdicts.append(found)
                advance(found.id)

            verify_all(
                wanted,
                trials=self.trials,
                confidence=self.confidence,
                seed=self.seed,
                smoke=self.smoke,
                source=self.source,
                workers=self.workers,
                scheduler=self.scheduler,
                json=self.json,
                draws=self.draws,
                report=seen,
                **place,
            )
        screen.print(_table(verdicts))
        known = library(self.source).claims
        for name in (name for name in everything if name not in wanted):
            screen.print(f"skipped: {name}: {known[name].unfit(**place)}")
        for claim in () if self.claims else library(self.source).claims.values():
            if claim.missing:
                screen.print(f"left out: {claim.id}, for {claim.missing}")
        surprises = [found for found in verdicts if not found.as_expected]
        for found in surprises:
            screen.print(f"{found.id}: {found.finding}, expected {found.expected}")
            screen.print(f"  {found.reason}")
            escaped = found.mutant is not Finding.VIOLATED
            fault = " (not found out, so that this check could not have failed)" if escaped else ""
            screen.print(f"  mutant {found.mutant}{fault}: {found.mutant_reason}")
        return FAILED if surprises else DONE


def _table(verdicts: list[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "verdict", "expected", "draws", "mutant", "seconds"):
        right = heading in ("draws", "seconds")
        table.add_column(heading, justify="right" if right else "left")
    for v in verdicts:
        style = "" if v.as_expected else "bold red"
        row = (v.id, v.finding, v.expected, str(v.trials), v.mutant, f"{v.seconds:.1f}")
        table.add_row(*row, style=style)
    return table


def _shipped_verdicts() -> Path:
    return shipped.folder(VERDICTS.parent.name) / VERDICTS.name


@dataclass(frozen=True)
class Report:
    """Write paper_checks.md from the verdicts on disk; nothing is measured."""

    json: Path | None = None
    """The file that `loraone verify --json` wrote; by default records/verdicts.json here, or else
    the verdicts that came with the package."""
    out: Path = REPORT
    """Where to write."""

    def run(self) -> int:
        """Render and write."""
        check_target(self.out, ".md")
        path = self.json or (VERDICTS if VERDICTS.exists() else _shipped_verdicts())
        records = verdict.load(path)
        source, papers = (self.json or VERDICTS).as_posix(), library().papers
        with storage.reading(path, "verdicts with all that a report needs"):
            text = report.render(records, source=source, papers=papers)
        storage.save_text(self.out, text)
        console().print(f"wrote {self.out}")
        return DONE
