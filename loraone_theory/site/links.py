"""Where the page of a claim leads: other claims, proof, code, figure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from loraone_theory.core.html import Html, joined, tag
from loraone_theory.site.entries import Entry
from loraone_theory.site.marks import icon
from loraone_theory.site.notation import mathematics

# Files of derivations, by the first word of what a claim calls its derivation.
_DERIVATIONS = {"sensing": "derivations_sensing", "neighbours": "derivations_neighbours"}


class Around(NamedTuple):
    """What a page needs to know besides its claim.

    Args:
        entries: all claims by id.
        docs: the folder of the site's sources.
        root: that of the repository.
        version: of the package.
        experiments: names of those that have a page in the gallery.
    """

    entries: Mapping[str, Entry]
    docs: Path
    root: Path
    version: str
    experiments: tuple[str, ...]


def linked(text: str, up: str, around: Around) -> Html:
    """A text in which ids of claims are links."""
    parts = re.split(r"(?<![\w/.-])([a-z0-9-]+(?:/[a-z0-9.-]*[a-z0-9])+)", text)
    return joined(
        tag("a", tag("code", part), href=f"{up}{part}.html")
        if part in around.entries
        else mathematics(part)
        for part in parts
    )


def to_claim(entry: Entry, up: str) -> Html:
    """A link to a claim: mark, title and id."""
    name = tag("a", mathematics(entry.claim.title), href=f"{up}{entry.id}.html")
    said = tag("span", entry.finding.value.lower(), class_="hidden")
    return joined([icon(entry.finding), said, " ", name, " ", tag("code", entry.id)])


def neighbours(entry: Entry, up: str, around: Around) -> Html:
    """What a claim rests on, and what rests on it."""
    uses = [around.entries[name] for name in entry.claim.uses if name in around.entries]
    users = [around.entries[name] for name in entry.used_by]
    parts: list[Html] = []
    for title, others in (("Rests on", uses), ("Used by", users)):
        parts.append(tag("h3", title))
        rows = [tag("li", to_claim(other, up)) for other in others]
        nothing = "Definitions alone." if title == "Rests on" else "No other claim."
        parts.append(tag("ul", *rows, class_="claims") if rows else tag("p", nothing))
    href = f"{up}{entry.paper.id}/index.html"
    parts.append(tag("p", tag("a", f"Graph of the claims of {entry.paper.title}", href=href)))
    return joined(parts)


def places(entry: Entry, up: str, around: Around) -> Html:
    """Links to the proof, the code and the figure."""
    found = []
    if entry.claim.derivation:
        file, anchor = proof(entry.claim.derivation, around.docs)
        words = f"Derivations: {entry.claim.derivation}"
        found.append(("Proof", tag("a", words, href=f"{up}../{file}.html{anchor}")))
    path, line = entry.source
    if path.is_relative_to(around.root):
        name = path.relative_to(around.root).as_posix()
        href = f"{up}source/{name.removesuffix('.py')}.html#line-{line}"
        found.append(("Code", tag("a", tag("code", f"{name}:{line}"), href=href)))
    if script := _script(entry.claim.figure, around):
        words = f"{entry.claim.figure} of {script}, its data and its command"
        found.append(("Figure", tag("a", words, href=f"{up}../gallery/{script}.html")))
    if not found:
        return tag("p", "The definitions and the file of claims are all there is.")
    rows = [joined([tag("dt", name), tag("dd", inside)]) for name, inside in found]
    return tag("dl", *rows, class_="places")


def _script(figure: str, around: Around) -> str:
    """The experiment that draws a figure: the one whose name is the longest beginning of its."""
    fit = [name for name in around.experiments if figure.startswith(name)]
    return max(fit, key=len, default="")


def picture(entry: Entry, around: Around) -> str:
    """The figure, in Markdown, so that it is copied into the site."""
    name = entry.claim.figure
    folder = (around.docs / "claims" / entry.id).parent
    return f"![Figure {name}]({os.path.relpath(around.root / 'figures' / name, folder)})\n"


def proof(derivation: str, docs: Path) -> tuple[str, str]:
    """The file of a derivation, and "#" with its anchor, or the nearest one above it that is there.

    >>> from loraone_theory import shipped
    >>> proof("3.2", shipped.folder("docs"))
    ('derivations', '#section-3.2')
    """
    first, _, rest = derivation.rpartition(" ")
    file = _DERIVATIONS.get(first, "derivations")
    path = docs / f"{file}.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    there = set(re.findall(r"^(?:#+ |\*\*)(\d+(?:\.\d+)*)\.?(?=\s)", text, re.MULTILINE))
    while rest and rest not in there:
        rest = rest.rpartition(".")[0]
    return file, f"#section-{rest}" if rest else ""


def beside(entry: Entry, up: str, around: Around) -> Html:
    """The claims before and after this one, in the order of the report."""
    ids = list(around.entries)
    at = ids.index(entry.id)
    links = []
    if at > 0:
        before = around.entries[ids[at - 1]]
        links.append(tag("a", "← ", mathematics(before.claim.title), rel="prev",
                         href=f"{up}{before.id}.html"))  # fmt: skip
    if at + 1 < len(ids):
        after = around.entries[ids[at + 1]]
        links.append(tag("a", mathematics(after.claim.title), " →", rel="next",
                         href=f"{up}{after.id}.html"))  # fmt: skip
    return tag("nav", *links, class_="beside", aria_label="Previous and next claim")
