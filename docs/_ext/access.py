"""What pages lack for readers without eyes or without a mouse.

Captions of the table of contents are headings, and have to say of which level; code that is wider
than the page has to be reached by the keys that move it.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

REPLACED = {
    'role="heading"': 'role="heading" aria-level="2"',
    '<div class="highlight"><pre>': '<div class="highlight"><pre tabindex="0">',
}


def completed(text: str) -> str:
    """The HTML of a page with what it lacks.

    >>> completed('<p role="heading">')
    '<p role="heading" aria-level="2">'
    """
    for lacking, whole in REPLACED.items():
        text = text.replace(lacking, whole)
    return text


def complete(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Complete the parts of a page."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = completed(context[part])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register, after the theme has made its table of contents."""
    app.connect("html-page-context", complete, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
