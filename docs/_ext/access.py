"""What pages lack for readers without eyes or without a mouse.

Captions of the table of contents are headings, and have to say of which level; code, formulas and
tables that are wider than the page have to be reached by the keys that move them; signatures of
several lines are lists of definitions without terms, and are to be read as text. The names of the
parts beside a page are in _templates/page.html.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SCROLLS = re.compile(r'<pre>|<div class="(?:formula-block|table-wrapper[^"]*)">')

SIGNATURE = re.compile(r"<dl>(?=\s*<dd>)")


def completed(text: str) -> str:
    """The HTML of a page with what it lacks.

    >>> completed('<p role="heading">'), completed("<pre>a</pre>")
    ('<p role="heading" aria-level="2">', '<pre tabindex="0">a</pre>')
    >>> completed("<dl><dd>rank: int,</dd></dl>")
    '<dl role="presentation"><dd>rank: int,</dd></dl>'
    """
    text = SIGNATURE.sub('<dl role="presentation">', text)
    text = text.replace('role="heading"', 'role="heading" aria-level="2"')
    return SCROLLS.sub(lambda found: f'{found[0][:-1]} tabindex="0">', text)


def complete(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Complete the parts of a page."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = completed(context[part])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register, after the theme has made its table of contents and all who change the body."""
    app.connect("html-page-context", complete, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
