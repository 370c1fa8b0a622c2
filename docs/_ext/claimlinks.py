"""{claim}`lora-one/theorem-3.1` links to the page of a claim, and so do ids in the derivations."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from loraone_theory.claims import CLAIMS

PREFIX = "Tested by:"
FOLDER = "claims"
ID = re.compile(r"([a-z0-9-]+(?:/[a-z0-9-]+(?:\.[a-z0-9-]+)*)+)")


def link(docname: str, claim: str, source: Path) -> nodes.Node:
    """A link to the page of a claim, or its id where the site has no page of it."""
    text = nodes.literal(claim, claim)
    if claim not in CLAIMS or not (source / FOLDER / f"{claim}.md").exists():
        return text
    options = {"refdoc": docname, "refdomain": "std", "reftype": "doc", "refexplicit": True}
    to = addnodes.pending_xref(reftarget=f"/{FOLDER}/{claim}", refwarn=True, **options)
    to += text
    return to


def role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role of docutils."""
    env = inliner.document.settings.env
    return [link(env.docname, text, Path(env.srcdir))], []


class TestedBy(SphinxTransform):
    """The ids after "Tested by:" become links."""

    default_priority = 870

    def apply(self) -> None:
        """Walk over the paragraphs that begin so."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if not paragraph.astext().startswith(PREFIX):
                continue
            for text in list(paragraph.findall(nodes.Text)):
                parts = [
                    link(self.env.docname, part, Path(self.env.srcdir))
                    if part in CLAIMS
                    else nodes.Text(part)
                    for part in ID.split(text.astext())
                ]
                text.parent.replace(text, parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_role("claim", role)
    app.add_transform(TestedBy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
