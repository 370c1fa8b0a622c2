"""Pages of the repository's root that belong to the site too: written beside the others."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def write(path: Path, text: str) -> bool:
    """Write a page where it has changed, so that only then it is read again; whether it had."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def moved(text: str) -> str:
    """The text of a page of the root with its links as they are from docs/.

    >>> moved("[a](docs/peft.md#how), [b](records/mutants.json), [c](https://x.org), [d](#e)")
    '[a](peft.md#how), [b](../records/mutants.json), [c](https://x.org), [d](#e)'
    >>> moved("[a](records/mutants.md), [b](paper_checks.md)")  # a file, and a page of the site
    '[a](path:../records/mutants.md), [b](../paper_checks.md)'
    """

    def link(found: re.Match[str]) -> str:
        target = found[1]
        if "://" in target or target.startswith("#"):
            return found[0]
        inside = target.removeprefix("docs/")
        if inside != target:
            return f"]({inside})"
        is_file = "/" in target and target.endswith(".md")
        return f"]({'path:' if is_file else ''}../{target})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def into_the_site(app: Sphinx, docname: str, content: list[str]) -> None:
    """Links from docs/ to a page of the root go to the one of the site that stands for it."""
    for name, page in PAGES.items():
        content[0] = content[0].replace(f"](../{name}", f"]({page}")
    explorer = (Path(app.srcdir) / "claims" / "index.md").exists()
    claims = "claims/index.md" if explorer else "path:../paper_checks.md"
    content[0] = content[0].replace("](../paper_checks.md)", f"]({claims})")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages and register."""
    docs = Path(app.srcdir)
    for name, page in PAGES.items():
        write(docs / page, moved((docs.parent / name).read_text(encoding="utf-8")))
    app.connect("source-read", into_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
