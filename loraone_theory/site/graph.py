"""The claims of a paper as a graph: statement on statement, each row a link to its page.

The claims of one statement share a box, which has a row for each, with the mark of its verdict. A
line goes from a row to the rows that rest on it, to the right. What is of another paper has a box
with a broken border.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from loraone_theory.core.html import Html, joined, tag
from loraone_theory.site.entries import Entry
from loraone_theory.site.layout import Box, Place, placed
from loraone_theory.site.marks import shape

ROW, HEAD, PAD, WIDTH, LETTER = 21, 22, 5, 196, 7.3
# Of boxes without lines: as many as a page of 1280 pixels has room for.
COLUMNS = 3


class Family(NamedTuple):
    """A box: its name, its rows, and whether it is of another paper."""

    name: str
    rows: tuple[Entry, ...]
    guest: bool

    @property
    def height(self) -> float:
        """Of the box."""
        return HEAD + ROW * len(self.rows) + PAD


def families(entries: Sequence[Entry], others: Mapping[str, Entry]) -> list[Family]:
    """The boxes of a paper's graph: its own claims, and what of other papers these rest on."""
    rows: dict[str, list[Entry]] = {}
    for entry in entries:
        rows.setdefault(entry.statement, []).append(entry)
    own = {entry.id for entry in entries}
    used = dict.fromkeys(n for e in entries for n in e.claim.uses if n not in own and n in others)
    guests: dict[str, list[Entry]] = {}
    for name in used:
        entry = others[name]
        guests.setdefault(f"{entry.paper.id}: {entry.statement}", []).append(entry)
    return [
        *(Family(name, tuple(group), False) for name, group in rows.items()),
        *(Family(name, tuple(group), True) for name, group in guests.items()),
    ]


def drawing(entries: Sequence[Entry], others: Mapping[str, Entry], title: str) -> Html:
    """The graph as SVG; links are relative to the folder of all pages' first level.

    Args:
        entries: the claims of the paper.
        others: all claims by id.
        title: of the graph.
    """
    found = families(entries, others)
    home = {entry.id: family.name for family in found for entry in family.rows}
    joins = [(n, e.id) for e in entries for n in e.claim.uses if n in home]
    linked = {home[name] for join in joins for name in join}
    boxes = {
        family.name: Box(
            WIDTH, family.height,
            frozenset(home[a] for a, b in joins if home[b] == family.name != home[a]),
        )
        for family in found
        if family.name in linked
    }  # fmt: skip
    places, width, height = placed(boxes)
    alone = [family for family in found if family.name not in linked]
    at, bottom = _grid(alone, max(width, COLUMNS * (WIDTH + 20)), height + (40 if linked else 0))
    places |= at
    rows = {
        entry.id: _row_place(places[family.name], i)
        for family in found
        for i, entry in enumerate(family.rows)
    }
    parts = [_line(rows[a], rows[b], a, b) for a, b in joins]
    parts += [_box(family, places[family.name]) for family in found]
    if alone and linked:
        words = "Resting on definitions alone, and used by no other claim:"
        parts.append(tag("text", words, x=0, y=height + 22, class_="aside"))
    right = max((place.x + WIDTH for place in places.values()), default=0.0)
    return tag(
        "svg", tag("title", title), *parts,
        viewBox=f"-14 -6 {right + 28:.0f} {bottom + 12:.0f}", width=f"{right + 28:.0f}",
        height=f"{bottom + 12:.0f}", class_="graph", role="group", aria_label=title,
    )  # fmt: skip


def _grid(families: Iterable[Family], width: float, top: float) -> tuple[dict[str, Place], float]:
    """Boxes without lines, in columns that are filled where they are shortest."""
    count = max(1, int((width + 20) // (WIDTH + 20)))
    ends = [top] * count
    places = {}
    for family in families:
        column = min(range(count), key=ends.__getitem__)
        places[family.name] = Place(column * (WIDTH + 20), ends[column])
        ends[column] += family.height + 14
    return places, max(ends)


def _row_place(corner: Place, i: int) -> Place:
    """The middle of the left end of a row."""
    return Place(corner.x, corner.y + HEAD + ROW * (i + 0.5))


def _line(used: Place, user: Place, name: str, other: str) -> Html:
    """From the right end of what is used to the left end of what uses it."""
    if used.x == user.x:  # within a box: around its left side
        path = f"M{used.x} {used.y:.1f}C{used.x - 14} {used.y:.1f} {user.x - 14} {user.y:.1f} "
    else:
        start, end = used.x + WIDTH, user.x
        bend = max(28.0, (end - start) / 2)
        path = f"M{start} {used.y:.1f}C{start + bend:.1f} {used.y:.1f} "
        path += f"{end - bend:.1f} {user.y:.1f} "
    path += f"{user.x} {user.y:.1f}"
    tip = f"M{user.x - 5} {user.y - 3.5:.1f}l5 3.5l-5 3.5"
    ends = {"data_from": name, "data_to": other}
    return tag("path", d=path + tip, class_="join", **ends)


def _box(family: Family, corner: Place) -> Html:
    frame = tag(
        "rect", x=corner.x, y=f"{corner.y:.1f}", width=WIDTH, height=family.height, rx=4,
        class_="frame guest" if family.guest else "frame",
    )  # fmt: skip
    head = tag(
        "text", _cut(family.name, WIDTH - 12), x=corner.x + 7, y=f"{corner.y + 15:.1f}",
        class_="head",
    )  # fmt: skip
    rows = [_row(entry, _row_place(corner, i)) for i, entry in enumerate(family.rows)]
    return joined([frame, head, *rows])


def _row(entry: Entry, at: Place) -> Html:
    label = _cut(entry.part or "the statement", WIDTH - 34)
    words = f"{entry.id}: {entry.claim.title} — {entry.finding}"
    return tag(
        "a",
        tag("title", words),
        tag("rect", x=at.x + 1, y=f"{at.y - ROW / 2:.1f}", width=WIDTH - 2, height=ROW,
            class_="row"),
        shape(entry.finding, at.x + 14, round(at.y, 1)),
        tag("text", label, x=at.x + 27, y=f"{at.y + 4.5:.1f}"),
        href=f"../{entry.id}.html", data_id=entry.id, aria_label=words,
    )  # fmt: skip


def _cut(text: str, width: float) -> str:
    """A text that fits."""
    most = int(width / LETTER)
    return text if len(text) <= most else text[: most - 1] + "…"
