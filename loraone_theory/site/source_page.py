"""The files in which claims are measured, with their line numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from loraone_theory.core.html import Html, tag
from loraone_theory.site.entries import Entry
from loraone_theory.site.html import Page, page, upwards

FOLDER = "source"


def source_pages(entries: Iterable[Entry], root: Path) -> Iterator[Page]:
    """A page for each file of the repository that measures a claim.

    Args:
        entries: the claims.
        root: of the repository.
    """
    lexer = PythonLexer()
    form: HtmlFormatter[str] = HtmlFormatter(
        linenos="inline", lineanchors="line", anchorlinenos=True, wrapcode=True
    )
    files: dict[Path, list[Entry]] = {}
    for entry in entries:
        path, _ = entry.source
        if path.is_relative_to(root):
            files.setdefault(path, []).append(entry)
    for path, own in files.items():
        name = path.relative_to(root).as_posix()
        there = f"{FOLDER}/{name.removesuffix('.py')}"
        up = upwards(there)
        links = [tag("li", tag("a", tag("code", e.id), href=f"{up}{e.id}.html")) for e in own]
        code = Html(highlight(path.read_text(encoding="utf-8"), lexer, form))
        words = tag("p", tag("code", name), " measures:")
        body = tag("div", words, tag("ul", *links), code, class_="source")
        yield page(there, f"`{path.name}`", body, orphan="true", hide_toc="true", no_search="true")
