"""The page of a paper: its graph, and its claims in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loraone_theory.claims import Finding, Paper
from loraone_theory.core.html import Html, joined, tag
from loraone_theory.site import graph
from loraone_theory.site.entries import Entry
from loraone_theory.site.html import Page, page, upwards
from loraone_theory.site.links import to_claim
from loraone_theory.site.marks import badge
from loraone_theory.site.notation import heading


def name_of(paper: Paper) -> str:
    """Of its page."""
    return f"{paper.id}/index"


def paper_page(paper: Paper, entries: Sequence[Entry], others: Mapping[str, Entry]) -> Page:
    """The page of a paper.

    Args:
        paper: the paper.
        entries: its claims.
        others: all claims by id.
    """
    up = upwards(name_of(paper))
    there = [finding for finding in Finding if any(e.finding is finding for e in entries)]
    key = tag("ul", *(tag("li", badge(finding)) for finding in there), class_="totals")
    title = f"Which claims of {paper.title} rest on which"
    svg = graph.drawing(entries, others, title)
    box = tag("div", svg, class_="wide", tabindex="0", role="region", aria_label=title)
    words = (
        "A line leads from a claim to those whose proof, or way of being measured, rests on it. "
        "Each row leads to the page of its claim, where the same stands as a list."
    )
    parts = [
        tag("p", f"{paper.reference}. " if paper.reference else "",
            tag("a", "All claims", href=f"{up}index.html?q=paper:{paper.id}"), "."),
        tag("section", tag("h2", "Graph", id="graph"), tag("p", words), key, box,
            aria_labelledby="graph"),
        tag("section", tag("h2", "List", id="list"), _list(paper, entries, up),
            aria_labelledby="list"),
    ]  # fmt: skip
    body = tag("div", *parts, class_="explorer")
    return page(name_of(paper), heading(paper.title), body, hide_toc="true")


def _list(paper: Paper, entries: Sequence[Entry], up: str) -> Html:
    """The claims under the headings of the paper's parts."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(paper.section(entry.id), []).append(entry)
    parts = []
    for title, group in groups.items():
        if title:
            parts.append(tag("h3", title))
        rows = [tag("li", to_claim(entry, up)) for entry in group]
        parts.append(tag("ul", *rows, class_="claims"))
    return joined(parts)
