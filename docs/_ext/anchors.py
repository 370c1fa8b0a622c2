"""Anchors that last: those that GitHub gives a heading, and those of numbered statements.

A heading has the anchor of its text as on GitHub (`3-2-exact-reduction` is `32-exact-reduction`
there), so that a link works in both places. A heading or a bold beginning with a number, "3.2 Exact
reduction" or "**1.5 ...**", has besides the anchor `section-3.2`, which a new wording leaves alone.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

NUMBER = re.compile(r"(\d+(?:\.\d+)*)\.?(?=\s|$)")


class Anchors(SphinxTransform):
    """Give sections and numbered paragraphs their further ids."""

    default_priority = 900

    def apply(self) -> None:
        """Walk over the page."""
        taken = {name for node in self.document.findall(nodes.Element) for name in node["ids"]}

        def give(node: nodes.Element, name: str) -> None:
            if name and name not in taken:
                taken.add(name)
                node["ids"].append(name)

        for section in self.document.findall(nodes.section):
            give(section, section.get("slug", ""))
            found = NUMBER.match(section.next_node(nodes.title).astext())
            if found:
                give(section, f"section-{found[1]}")
        for paragraph in self.document.findall(nodes.paragraph):
            first = next((node for node in paragraph.children if node.astext()), None)
            if isinstance(first, nodes.strong):
                found = NUMBER.match(first.astext())
                if found:
                    give(paragraph, f"section-{found[1]}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_transform(Anchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
