"""Captions of the table of contents are headings; a heading has to say of which level."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

WITHOUT, WITH = 'role="heading"', 'role="heading" aria-level="2"'


def levelled(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the captions of a page a level."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = context[part].replace(WITHOUT, WITH)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register, after the theme has made its table of contents."""
    app.connect("html-page-context", levelled, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
