"""What scrolls sideways can be reached and scrolled by the keyboard."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SCROLLS = re.compile(r'<pre>|<div class="formula-block">')


def reachable(body: str) -> str:
    """A page whose blocks of code and formulas are stops of the tab key.

    >>> reachable("<pre>a</pre>")
    '<pre tabindex="0">a</pre>'
    """
    return SCROLLS.sub(lambda found: f'{found[0][:-1]} tabindex="0">', body)


def on_page(app: Sphinx, pagename: str, template: str, context: dict, doctree: Any) -> None:
    """Change the body of each page that has one."""
    if "body" in context:
        context["body"] = reachable(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register, after all who change the body."""
    app.connect("html-page-context", on_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
