"""From the records of `loraone verify` to paper_checks.md: pure text, nothing measured here."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from loraone_theory.claims import PAPERS, Finding, Paper, stats

Record = dict[str, Any]

# What begins a tag, a comment or an address in Markdown.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# What Markdown takes for the beginning of italics: the bar of ‖E‖_F, the star of λ*².
_ITALICS = re.compile(r"(?<=[^\w\s\\])_|(?<=\w)\*(?=\w)")

_INTRODUCTION = """\
# Do the papers' theorems hold numerically?

Every claim below was measured, judged, and then broken on purpose: the broken version (the
*mutant*) has to come out VIOLATED, or the check could not have failed. Draws that do not meet a
claim's hypotheses are counted apart and never taken as support.

- **SUPPORTED**: holds on every draw inside its hypotheses (identities, bounds), with the promised
  probability (probabilities), or with a mean whose whole confidence interval lies within the stated
  allowance of the promised value (values).
- **CERTIFIED**: true on the whole domain, by ball arithmetic: every number is an interval that
  holds the exact one.
- **VIOLATED**: does not. Some claims are expected to be violated; the section says why.
- **OUTSIDE HYPOTHESES**: no draw met the hypotheses, so nothing was tested.
- **INCONCLUSIVE**: too few draws to decide.
"""

_LEVEL = """\
## What the level means

Probabilities and values are decided by confidence sequences, which hold at every number of draws at
once: easy claims stop early, hard ones go on to a cap. At the level {level:g} the chance that luck
makes any such verdict of a whole run wrong is at most {wrong:.2g}: each of up to {verdicts}, on
claims and mutants alike, is decided at {each:.2g}. So a probability of 0.99 is supported by
{needed} draws without a failure, not by fewer: of all settings of the claim together, none of which
may refute it alone. For values the chance is that of Gaussian ones, and larger where few draws are
skewed. Identities and bounds are decided by every draw, up
to a tolerance derived from dtype, size and conditioning.

This file is written by `loraone report` from `{source}`; `loraone verify` makes that file.
Proofs of the results marked with a derivation are in [docs/derivations.md](docs/derivations.md).
"""


def render(records: Sequence[Record], *, source: str, papers: Sequence[Paper] = PAPERS) -> str:
    """The whole of paper_checks.md: a page for a reader in a hurry, then each paper's claims.

    Args:
        records: the objects of a verdict file, in the order wanted.
        source: the name of that file, as the text shall give it.
        papers: whose titles and sections are known; others go by the first part of their ids.
    """
    records = [_escaped(record) for record in records]
    groups = _grouped(records, papers)
    parts = [_INTRODUCTION, "## Papers\n", _counts(groups), *_surprises(records)]
    violated = [r for r in records if r["verdict"] == Finding.VIOLATED]
    dropped = [r for r in violated if r["about"]["reference"].startswith("ours")]
    parts += ["## Discrepancies found\n", _listed([r for r in violated if r not in dropped])]
    parts += ["## What fails once a hypothesis is dropped\n", _listed(dropped)]
    parts.append(_level(records, source))
    for paper, sections in groups:
        parts.append(f"## {_paper_heading(paper)}\n")
        if paper.reference:
            parts.append(f"{_escaped(paper.reference)}.\n")
        parts.append(_summary([record for group in sections.values() for record in group]))
        for heading, group in sections.items():
            if heading:
                parts.append(f"### {_escaped(heading)}\n")
            parts.extend(_section(record) for record in group)
    return "\n".join(parts).rstrip() + "\n"


Groups = list[tuple[Paper, dict[str, list[Record]]]]


def _grouped(records: Iterable[Record], papers: Sequence[Paper]) -> Groups:
    """The records by paper and by section, papers and sections in the order that is stated."""
    known = {paper.id: paper for paper in papers}
    by_paper: dict[str, list[Record]] = {name: [] for name in known}
    for record in records:
        by_paper.setdefault(record["id"].partition("/")[0], []).append(record)
    groups: Groups = []
    for name, own in by_paper.items():
        paper = known.get(name) or Paper(name, name, "", ())
        sections: dict[str, list[Record]] = {h: [] for h in ("", *paper.sections.values())}
        for record in own:
            sections[paper.section(record["id"])].append(record)
        if own:
            groups.append((paper, {heading: rows for heading, rows in sections.items() if rows}))
    return groups


def _paper_heading(paper: Paper) -> str:
    return str(_escaped(f"{paper.title} (`{paper.id}`)"))


def _counts(groups: Groups) -> str:
    """Papers against verdicts; a zero is left blank."""
    rows = [
        f"| paper | claims | {' | '.join(Finding)} |",
        "| --- |" + " ---: |" * (len(Finding) + 1),
    ]
    total: Counter[str] = Counter()
    for paper, sections in groups:
        count = Counter(record["verdict"] for group in sections.values() for record in group)
        total += count
        heading = _paper_heading(paper)
        rows.append(_count_row(f"[{_cell(heading)}](#{_anchor(heading)})", count))
    return "\n".join([*rows, _count_row("all", total)]) + "\n"


def _count_row(first: str, count: Mapping[str, int]) -> str:
    cells = (str(count.get(finding, "")) for finding in Finding)
    return f"| {first} | {sum(count.values())} | {' | '.join(cells)} |"


def _surprises(records: Iterable[Record]) -> list[str]:
    found = [
        _link(record)
        for record in records
        if record["verdict"] != record["expected"] or record["mutant_verdict"] != Finding.VIOLATED
    ]
    if not found:
        return ["Every verdict is the expected one, and every mutant was found out.\n"]
    return [f"**Against expectation** (claim or mutant): {', '.join(found)}.\n"]


def _listed(records: Sequence[Record]) -> str:
    """A line for each, with the first sentence of its reading."""
    return "\n".join(map(_line, records)) + "\n" if records else "None.\n"


def _line(record: Record) -> str:
    about = record["about"]
    first = re.split(r"(?<=[.:;])\s", about["explanation"], maxsplit=1)[0].rstrip(".:;")
    return f"- {_link(record)}: {about['title']}{f' — {first}' if first else ''}."


def _level(records: Sequence[Record], source: str) -> str:
    level = min((record["confidence"] for record in records), default=0.99)
    return _LEVEL.format(
        level=level,
        wrong=1 - level,
        verdicts=stats.VERDICTS,
        each=1 - stats.each(level),
        needed=stats.draws_needed(0.99, level),
        source=source,
    )


def _link(record: Record) -> str:
    return f"[{record['id']}](#{_anchor(_heading(record))})"


def _summary(records: Sequence[Record]) -> str:
    rows = ["| claim | what | verdict | expected | draws | mutant |"]
    rows.append("| --- | --- | --- | --- | ---: | --- |")
    for record in records:
        flag = "" if record["verdict"] == record["expected"] else " (!)"
        rows.append(
            f"| {_link(record)} | {_cell(record['about']['title'])} | {record['verdict']}{flag} "
            f"| {record['expected']} | {record['trials']} | {record['mutant_verdict']} |"
        )
    return "\n".join(rows) + "\n"


def _section(record: Record) -> str:
    about = record["about"]
    lines = [f"#### {_heading(record)}\n", f"**{record['verdict']}** — {record['reason']}.\n"]
    lines.append(f"- *Claim* ({about['reference']}): {about['statement']}")
    lines.append(f"- *Hypotheses*: {'; '.join(about['hypotheses']) or 'none'}.")
    lines.append(f"- *How tested* ({about['kind']}): {about['how']}")
    lines.append(_effort(record))
    lines.append(
        f"- *Mutant*: {about['mutant_statement']}. **{record['mutant_verdict']}** — "
        f"{record['mutant_reason']}."
    )
    if record["verdict"] != record["expected"]:
        lines.append(f"- *Expected* {record['expected']}: this run contradicts the library.")
    if about["explanation"]:
        lines.append(f"- *Reading*: {about['explanation']}")
    if about["derivation"]:
        lines.append(f"- *Proof*: derivations {about['derivation']}.")
    lines.append(f"- *Rerun*: `{command(record)}`")
    if worst := record.get("worst_draw"):
        lines.append(
            f"- *Worst draw*: {worst['lhs']:.4g} against {worst['rhs']:.4g}, `{worst['rerun']}`"
        )
    lines.append("")
    if record["numbers"]:
        lines.append("| measured | value |\n| --- | ---: |")
        lines.extend(f"| {_cell(n)} | {_number(v)} |" for n, v in record["numbers"].items())
        lines.append("")
    if about["figure"]:
        picture = PurePosixPath("figures", about["figure"]).with_suffix(".png")
        lines.append(f"![{_cell(about['title'])}]({picture})\n")
    return "\n".join(lines)


def _effort(record: Record) -> str:
    if record["about"]["kind"] == "certificate":
        return f"- *Proof and refutation of the mutant*: {record['seconds']:.2g} s; no draws."
    return (
        f"- *Draws*: {record['trials']}, of which {record['inside']} meet the hypotheses; "
        f"confidence {record['confidence']:g}."
    )


def command(record: Record) -> str:
    """What judges the claim of a record again, as it was judged."""
    smoke = " --smoke" if record["smoke"] else ""
    drawn = f"--trials {record['requested']} --seed {record['seed']}{smoke}"
    source = record.get("made", {}).get("from")
    given = f" --from {shlex.quote(source)}" if source else ""
    return f"loraone verify {record['id']}{given} {drawn}"


def _heading(record: Record) -> str:
    return f"{record['id']}: {record['about']['title']}"


def _anchor(heading: str) -> str:
    """The anchor that Markdown renderers give a heading."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def _escaped(value: Any) -> Any:
    """Texts of a record on one line each, without what would begin a tag in HTML or italics."""
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    if not isinstance(value, str):
        return value
    return _ITALICS.sub(r"\\\g<0>", _TAG.sub("&lt;", " ".join(value.split())))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _cell(str(value))
    if isinstance(value, int):
        return str(value)
    return "not defined" if math.isnan(value) else f"{value:.4g}"
