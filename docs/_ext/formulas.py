"""Formulas without a network and without scripts: MathML, written when the site is built.

The browsers of today draw MathML themselves, screen readers read it, it is text that is searched
and copied, and it takes no second after the page is there; a bundled MathJax would be six megabytes
of script for the few formulas that are not plain Unicode, and prerendered KaTeX needs Node and
three of its fonts. What a browser lacks is a font with a table for mathematics: STIX Two comes
from the package ziamath and is copied into the site. Indented blocks that are not code, the
Unicode formulas of the derivations and docstrings, are set in the same font.
"""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import latex2mathml.converter
import ziamath
from docutils import nodes
from sphinx.application import Sphinx

FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"


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


def unicode_formula(self, node: nodes.literal_block) -> None:
    """An indented block without a language: a formula as it was typed."""
    if node.get("language", "default") not in ("default", "none") or node.get("classes"):
        return self.visit_literal_block_of_sphinx(node)
    self.body.append(self.starttag(node, "pre", "", CLASS="formula", tabindex="0"))
    self.body.append(html.escape(node.astext(), quote=False))
    self.body.append("</pre>\n")
    raise nodes.SkipNode


def copy_font(app: Sphinx, exception: Exception | None) -> None:
    """Put the font beside the style sheet."""
    if exception is None and app.builder.format == "html":
        shutil.copyfile(FONT, Path(app.outdir) / "_static" / FONT.name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("build-finished", copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
