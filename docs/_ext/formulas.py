"""Formulas without a network and without scripts: MathML, written when the site is built.

The browsers of today draw MathML themselves, screen readers read it, it is text that is searched
and copied, and it takes no second after the page is there; a bundled MathJax would be six megabytes
of script for the few formulas that are not plain Unicode, and prerendered KaTeX needs Node and
three of its fonts. What a browser lacks is a font with a table for mathematics: STIX Two comes
from the package ziamath and is copied into the site. Indented blocks that are not code, the
Unicode formulas of the derivations and docstrings, are set in the same font.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from indices import as_html
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# OpenType with a table for mathematics, under the SIL Open Font License.
FONT = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"


# Pages whose indented blocks are formulas.
MATHEMATICS = ("derivations",)


def mathml(tex: str, display: str) -> str:
    """A formula in TeX as MathML, with its source as the annotation that is copied.

    >>> mathml("x", "inline").startswith("<math")
    True
    """
    return latex2mathml.converter.convert(tex, display=display)


def inline(self, node: nodes.math) -> None:
    """In the line."""
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self, node: nodes.math_block) -> None:
    """On a line of its own."""
    self.body.append(self.starttag(node, "div", CLASS="formula-block"))
    self.body.append(mathml(node.astext(), "block"))
    self.body.append("</div>\n")
    raise nodes.SkipNode


class formula(nodes.General, nodes.Element):
    """A formula on lines of its own, in Unicode."""


class Formulas(SphinxTransform):
    """On pages of mathematics an indented block is a formula, not code."""

    default_priority = 880

    def apply(self) -> None:
        """Put formulas in place of the blocks."""
        if not self.env.docname.startswith(MATHEMATICS):
            return
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language", "none") in ("none", "default", "text"):
                block.replace_self(formula("", text=block.astext()))


def enter(self, node: formula) -> None:
    """In the font of formulas, as it was laid out."""
    self.body.append(self.starttag(node, "pre", "", CLASS="formula", tabindex="0"))
    self.body.append(as_html(node["text"]))


def leave(self, node: formula) -> None:
    """The end of it."""
    self.body.append("</pre>\n")


def copy_font(app: Sphinx, exception: Exception | None) -> None:
    """Put the font beside the style sheet."""
    if exception is None and app.builder.format == "html":
        shutil.copyfile(FONT, Path(app.outdir) / "_static" / FONT.name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    app.add_node(formula, html=(enter, leave))
    app.add_transform(Formulas)
    app.connect("build-finished", copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
