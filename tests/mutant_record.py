"""What mutants were tried, counted file by file, as rows and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
COUNTS = ("mutants", "tried", "killed", "argued", "open")
HEADS = ("file", "mutants", "tried", "killed", "equivalent", "open")
NOTHING: Row = {"mutants": 0, "tried": 0, "killed": 0, "argued": 0, "open": []}


def row(
    names: Sequence[str], known: Mapping[str, bool], reasons: tuple[str, ...], before: Row
) -> Row:
    """The counts of one file.

    Names of samples that were drawn before they were kept are unknown, so the counts of two samples
    cannot be put together: those of the larger one stand.

    Args:
        names: its mutants.
        known: those that were tried, and whether they were killed.
        reasons: how the names start of those that are argued equivalent.
        before: its row so far.
    """
    mine = [name for name in names if name in known]
    if len(mine) < before["tried"]:
        return {**before, "mutants": len(names)}
    alive = [name for name in mine if not known[name]]
    return {
        "mutants": len(names),
        "tried": len(mine),
        "killed": len(mine) - len(alive),
        "argued": sum(name.startswith(reasons) for name in alive),
        "open": [name for name in alive if not name.startswith(reasons)],
    }


def counts(row: Row) -> list[int]:
    """The numbers of COUNTS."""
    return [len(row["open"]) if name == "open" else row[name] for name in COUNTS]


def page(rows: Mapping[str, Row]) -> str:
    """A table in Markdown, a line a file.

    >>> print(page({"core/f.py": NOTHING | {"mutants": 9, "tried": 2, "killed": 2}}))
    # What the tests notice
    <BLANKLINE>
    ...
    Of 9 mutants in 1 files 2 were tried, at least 2 of each file: 2 are killed, 0 argued equivalent
    and 0 open.
    <BLANKLINE>
    | file | mutants | tried | killed | equivalent | open |
    | --- | ---: | ---: | ---: | ---: | ---: |
    | core/f.py | 9 | 2 | 2 | 0 | 0 |
    <BLANKLINE>
    """
    of_each = {file: counts(row) for file, row in rows.items()}
    columns = zip(*of_each.values(), strict=True)
    mutants, tried, killed, argued, left = (sum(column) for column in columns)
    least = min(row[1] for row in of_each.values())
    lines = [
        "# What the tests notice",
        "",
        "One thing of the numerical core is changed at a time (a sign, a comparison, a constant),"
        " and the tests of its file are run: a mutant is killed when one of them fails. Those that"
        " no test can tell from the original are argued, one by one, in `tests/mutants.json`;"
        " `open` are the survivors that are neither.",
        "",
        "Written by `python tests/mutants.py --record`.",
        "",
        f"Of {mutants} mutants in {len(rows)} files {tried} were tried, at least {least} of each"
        f" file: {killed} are killed, {argued} argued equivalent and {left} open.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"| --- |{' ---: |' * len(COUNTS)}",
        *(f"| {file} | {' | '.join(map(str, row))} |" for file, row in of_each.items()),
    ]
    return "\n".join(lines) + "\n"
