"""From the records of `loraone verify` to paper_checks.md: pure text, nothing measured here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

Record = dict[str, Any]

# What begins a tag, a comment or an address in Markdown.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")

# Heading -> how the ids under it start, tried in order.
_GROUPS = (
    ("Discrepancies between paper, code, notebook and README", ("4.",)),
    ("The ReLU model: closed forms and laws", ("5.",)),
    ("Results of our own on the linear model", ("3.",)),
    ("The paper's claims", ("",)),
)
_ORDER = (3, 2, 1, 0)

_INTRODUCTION = """\
# Does the paper's theory hold numerically?

Every claim below was measured, judged, and then broken on purpose: the broken version (the
*mutant*) has to come out VIOLATED, or the check could not have failed. Draws that do not meet a
claim's hypotheses are counted apart and never taken as support.

- **SUPPORTED**: holds on every draw inside its hypotheses (identities, bounds), with the promised
  probability (probabilities), or with a mean whose whole confidence interval lies within the stated
  allowance of the promised value (values). Probabilities and values are decided so that none of a
  whole run's verdicts is wrong by luck, except with one minus the stated confidence.
- **VIOLATED**: does not. Some claims are expected to be violated; the section says why.
- **OUTSIDE HYPOTHESES**: no draw met the hypotheses, so nothing was tested.
- **INCONCLUSIVE**: too few draws to decide.

This file is written by `loraone report` from `{source}`; `loraone verify` makes that file.
Proofs of the results marked with a derivation are in [docs/derivations.md](docs/derivations.md).
"""


def render(records: Sequence[Record], *, source: str) -> str:
    """The whole of paper_checks.md.

    Args:
        records: the objects of a verdict file, in the order wanted.
        source: the name of that file, as the text shall give it.
    """
    records = [_escaped(record) for record in records]
    parts = [_INTRODUCTION.format(source=source), "## Summary\n", _summary(records)]
    groups = _grouped(records)
    for index in _ORDER:
        if groups[index]:
            parts.append(f"## {_GROUPS[index][0]}\n")
            parts.extend(_section(record) for record in groups[index])
    return "\n".join(parts).rstrip() + "\n"


def _grouped(records: Iterable[Record]) -> list[list[Record]]:
    groups: list[list[Record]] = [[] for _ in _GROUPS]
    for record in records:
        index = next(i for i, (_, starts) in enumerate(_GROUPS) if record["id"].startswith(starts))
        groups[index].append(record)
    return groups


def _summary(records: Sequence[Record]) -> str:
    rows = ["| claim | what | verdict | expected | draws | confidence | mutant |"]
    rows.append("| --- | --- | --- | --- | ---: | ---: | --- |")
    for group in (_grouped(records)[i] for i in _ORDER):
        for record in group:
            link = f"[{record['id']}](#{_anchor(_heading(record))})"
            flag = "" if record["verdict"] == record["expected"] else " (!)"
            rows.append(
                f"| {link} | {_cell(record['about']['title'])} | {record['verdict']}{flag} "
                f"| {record['expected']} | {record['trials']} | {record['confidence']:g} "
                f"| {record['mutant_verdict']} |"
            )
    return "\n".join(rows) + "\n"


def _section(record: Record) -> str:
    about = record["about"]
    lines = [f"### {_heading(record)}\n", f"**{record['verdict']}** — {record['reason']}.\n"]
    lines.append(f"- *Claim* ({about['reference']}): {about['statement']}")
    lines.append(f"- *Hypotheses*: {'; '.join(about['hypotheses']) or 'none'}.")
    lines.append(f"- *How tested* ({about['kind']}): {about['how']}")
    lines.append(
        f"- *Draws*: {record['trials']}, of which {record['inside']} meet the hypotheses; "
        f"confidence {record['confidence']:g}."
    )
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
    lines.append(f"- *Rerun*: `{_command(record)}`\n")
    if record["numbers"]:
        lines.append("| measured | value |\n| --- | ---: |")
        lines.extend(f"| {_cell(n)} | {_number(v)} |" for n, v in record["numbers"].items())
        lines.append("")
    if about["figure"]:
        picture = PurePosixPath("figures", about["figure"]).with_suffix(".png")
        lines.append(f"![{_cell(about['title'])}]({picture})\n")
    return "\n".join(lines)


def _command(record: Record) -> str:
    smoke = " --smoke" if record["smoke"] else ""
    name = f'"{record["id"]}"'
    return f"loraone verify {name} --trials {record['requested']} --seed {record['seed']}{smoke}"


def _heading(record: Record) -> str:
    return f"{record['id']}: {record['about']['title']}"


def _anchor(heading: str) -> str:
    """The anchor that Markdown renderers give a heading."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def _escaped(value: Any) -> Any:
    """Texts of a record on one line each, and without what would begin a tag or a link in HTML."""
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    if not isinstance(value, str):
        return value
    return _TAG.sub("&lt;", " ".join(value.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _cell(str(value))
    if isinstance(value, int):
        return str(value)
    return "not defined" if math.isnan(value) else f"{value:.4g}"
