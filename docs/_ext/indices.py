"""Subscripts and superscripts in Unicode formulas: A_t, ‖E‖_F, λ_{r*}, d^{3/4} as they are meant.

The derivations, docstrings and claims write formulas as text, to be read in an editor. On a page
their indices are lowered and their exponents raised; names such as init_std stay.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# After a letter, a closing sign, a mark on a letter or another script.
BASE = r"(?<=[^\W\d_])|(?<=[∇‖)\]}*′'’†⁺⁻ᵀ²³₀-₉\u0300-\u036f])"
WORDS = "op|min|max|eff|pre|std|nuc|end"
BARE = rf"(?:{WORDS})(?![a-z])|[^\W\d_](?![a-z_])|\d+|[⊥∞∗*]"
SCRIPT = re.compile(rf"(?:{BASE})([_^])(?:\{{([^{{}}]+)\}}|({BARE}))")
OPERATORS = re.compile(r"(?:min|max|sup|inf|lim|log|exp|det|tr|cos|sin|dist)$")
# Where text is code, or becomes the name of something.
VERBATIM = (
    nodes.literal, nodes.FixedTextElement, nodes.math, nodes.title, nodes.raw, nodes.Invisible,
    addnodes.desc_signature, addnodes.index,
)  # fmt: skip


def split(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a text, each with "_", "^" or "" for where it stands.

    >>> list(split("‖A_tB_t‖_F of init_std"))
    [('‖A', ''), ('t', '_'), ('B', ''), ('t', '_'), ('‖', ''), ('F', '_'), (' of init_std', '')]
    """
    last = 0
    for found in SCRIPT.finditer(text):
        before = text[last : found.start()]
        if re.search(r"[a-z]{2}$", before) and not OPERATORS.search(before):
            continue
        if before:
            yield before, ""
        yield found[2] or found[3], found[1]
        last = found.end()
    if last < len(text):
        yield text[last:], ""


def as_html(text: str) -> str:
    """A formula as HTML.

    >>> as_html("‖E‖_F < d^{3/4}")
    '‖E‖<sub>F</sub> &lt; d<sup>3/4</sup>'
    """
    tags = {"_": "sub", "^": "sup"}
    parts = ((html.escape(part, quote=False), tags.get(place)) for part, place in split(text))
    return "".join(f"<{tag}>{part}</{tag}>" if tag else part for part, tag in parts)


class Scripts(SphinxTransform):
    """Lower and raise what is written so."""

    default_priority = 890

    def apply(self) -> None:
        """Walk over the texts of the page."""
        for text in list(self.document.findall(nodes.Text)):
            if not re.search("[_^]", text) or is_verbatim(text):
                continue
            kinds = {"": None, "_": nodes.subscript, "^": nodes.superscript}
            parts: list[nodes.Node] = []
            for part, place in split(text.astext()):
                kind = kinds[place]
                parts.append(nodes.Text(part) if kind is None else kind("", part))
            if len(parts) > 1:
                text.parent.replace(text, parts)


def is_verbatim(node: nodes.Node) -> bool:
    """Whether a text is within code or a name."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, VERBATIM):
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_transform(Scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
