"""Every verdict over many master seeds: which turn over, and how often mutants are found out."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loraone_theory import engines, storage
from loraone_theory.claims import CLAIMS, Finding
from loraone_theory.claims.choice import chosen
from loraone_theory.claims.packs import library
from loraone_theory.claims.run import verify
from loraone_theory.core import validate

SEEDS = 20
# A mutant is found out reliably where so large a share of master seeds does.
POWER = 0.95


class Row(NamedTuple):
    """One claim at one master seed: of the smallest size or at full size, by which code."""

    id: str
    seed: int
    verdict: Finding
    expected: Finding
    mutant: Finding
    smoke: bool
    code: str


class Tally(NamedTuple):
    """One claim over the master seeds.

    Args:
        id: of the claim.
        expected: its verdict.
        verdicts: how often each.
        mutants: how often each, of its mutant.
        smoke: of the smallest size, not at full size.
    """

    id: str
    expected: Finding
    verdicts: Counter[Finding]
    mutants: Counter[Finding]
    smoke: bool = True

    @property
    def turned(self) -> int:
        """Seeds at which the verdict is neither the expected one nor open."""
        return self.verdicts.total() - self.verdicts[self.expected] - self.open

    @property
    def open(self) -> int:
        """Seeds at which the draws decide nothing, where something was expected."""
        inconclusive = Finding.INCONCLUSIVE
        return 0 if self.expected is inconclusive else self.verdicts[inconclusive]

    @property
    def found_out(self) -> int:
        """Seeds at which the mutant is found out."""
        return self.mutants[Finding.VIOLATED]

    @property
    def powerful(self) -> bool:
        """Whether the mutant is found out at nearly all seeds."""
        return self.found_out >= POWER * self.mutants.total()


def sweep(
    names: Sequence[str] = (),
    *,
    seeds: int = SEEDS,
    paper: str | None = None,
    smoke: bool = True,
    workers: int = 1,
    json: str | Path | None = None,
    report: Callable[[Row], object] | None = None,
) -> list[Tally]:
    """Judge claims at master seeds 0, 1, …, and count.

    Args:
        names: ids; without any, all that do not take long, or those of `paper`.
        seeds: how many master seeds.
        paper: see `verify_all`.
        smoke: the smallest sizes.
        workers: processes.
        json: the rows go to this file as they come. Rows in it that the same code made with the
            same sizes are not made again; others of these claims are dropped, and those of other
            claims stay. The code of claims from an installed pack is the pack's too.
        report: called with each row.

    >>> (tally,) = sweep(["lora-one/linear/one-step"], seeds=2)
    >>> tally.turned, tally.found_out
    (0, 2)
    """
    names = chosen(validate.sequence("names", names, "ids of claims"), paper=paper)
    validate.integer("seeds", seeds, least=1)
    where = engines.place(workers)
    validate.flag("smoke", smoke)
    if report is not None:
        validate.function("report", report)
    path = None if json is None else storage.target(json, ".json")
    code = {name: _code(name) for name in names}
    kept = load(path) if path is not None and path.exists() else []
    rows = {
        (row.id, row.seed): row
        for row in kept
        if row.id not in names or (row.code, row.smoke) == (code[row.id], smoke)
    }
    jobs = [(name, seed) for name in names for seed in range(seeds)]
    for row in _rows([job for job in jobs if job not in rows], code, smoke, where):
        rows[row.id, row.seed] = row
        if path is not None:
            storage.save_json(path, {"rows": [row._asdict() for row in rows.values()]})
        if report is not None:
            report(row)
    return tallies(rows[job] for job in jobs)


def _code(name: str) -> str:
    """What a row of this claim is of: the code of the package, and of packs for one of theirs."""
    own = storage.code_version()
    if name in CLAIMS:
        return own
    return hashlib.sha256(repr((own, sorted(library().origin.items()))).encode()).hexdigest()


def _rows(
    jobs: Sequence[tuple[str, int]], code: Mapping[str, str], smoke: bool, where: engines.Place
) -> Iterator[Row]:
    work = functools.partial(_judged, code=code, smoke=smoke)
    for _, row in engines.all_of(work, jobs, where):
        yield row


def _judged(job: tuple[str, int], *, code: Mapping[str, str], smoke: bool) -> Row:
    name, seed = job
    found = verify(name, seed=seed, smoke=smoke)
    return Row(name, seed, found.finding, found.expected, found.mutant, smoke, code[name])


def load(path: str | Path) -> list[Row]:
    """The rows of a file.

    Raises:
        storage.DamagedFile: another kind of file, or a damaged one.
    """
    given: Any = storage.load_json(path)
    with storage.reading(path, "verdicts over master seeds"):
        return [
            Row(
                id=str(row["id"]),
                seed=int(row["seed"]),
                verdict=Finding(row["verdict"]),
                expected=Finding(row["expected"]),
                mutant=Finding(row["mutant"]),
                smoke=bool(row["smoke"]),
                code=str(row["code"]),
            )
            for row in given["rows"]
        ]


def tallies(rows: Iterable[Row]) -> list[Tally]:
    """The rows counted by claim, in the order in which claims come first."""
    found: dict[str, Tally] = {}
    for row in rows:
        new = Tally(row.id, row.expected, Counter(), Counter(), row.smoke)
        tally = found.setdefault(row.id, new)
        tally.verdicts[row.verdict] += 1
        tally.mutants[row.mutant] += 1
    return list(found.values())


def page(rows: Iterable[Row]) -> str:
    """A table in Markdown: the claims that turn over or whose mutants escape, then all."""
    rows, place = list(rows), {name: i for i, name in enumerate(CLAIMS)}
    counts = sorted(tallies(rows), key=lambda t: place.get(t.id, len(place)))
    seeds = max((tally.verdicts.total() for tally in counts), default=0)
    turned = [tally for tally in counts if tally.turned or not tally.powerful]
    judged = {tally.id for tally in counts}
    absent = [claim.id for claim in CLAIMS.values() if claim.id not in judged]
    lines = [
        "# Verdicts over master seeds\n",
        f"{len(counts)} claims at {seeds} master seeds, {sum(t.smoke for t in counts)} of them at "
        "the smallest sizes and the others at full size. A verdict has *turned* where it is "
        "neither the expected one nor INCONCLUSIVE, which small draws may leave a claim. States "
        f"of the code that the rows are of: {len({row.code for row in rows})}.\n",
        f"Turned: {sum(t.turned for t in counts)} of {sum(t.verdicts.total() for t in counts)} "
        f"verdicts. Mutants found out at {POWER:.0%} of the seeds at least: "
        f"{sum(t.powerful for t in counts)} of {len(counts)}.\n",
        "## To look at\n",
        _table(turned) if turned else "Nothing.\n",
        "## Not judged\n",
        "\n".join(f"- {name}" for name in absent) + "\n" if absent else "None.\n",
        "## All\n",
        _table(counts),
    ]
    return "\n".join(lines)


def _table(counts: Sequence[Tally]) -> str:
    lines = ["| claim | size | expected | as expected | open | turned | mutant found out |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for t in counts:
        lines.append(
            f"| {t.id} | {'smallest' if t.smoke else 'full'} | {t.expected} "
            f"| {t.verdicts[t.expected]} | {t.open or ''} | {t.turned or ''} "
            f"| {t.found_out} of {t.mutants.total()} |"
        )
    return "\n".join(lines) + "\n"
