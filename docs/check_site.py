"""What a built site may not have: links that lead nowhere, and resources from elsewhere.

`python docs/check_site.py docs/_build/html` prints each fault and fails if there is one. Links to
other sites are only followed by a reader who clicks on them, and are not fetched here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that a browser follows by itself, and relations of <link> that it does.
FETCHED = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "video": ("src",),
    "audio": ("src",), "iframe": ("src",), "embed": ("src",), "object": ("data",),
    "track": ("src",), "image": ("href", "xlink:href"), "use": ("href", "xlink:href"),
    "form": ("action",), "base": ("href",), "input": ("src",),
}  # fmt: skip
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect",
             "dns-prefetch", "manifest", "apple-touch-icon", "shortcut icon"}  # fmt: skip
IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """The ids of a page, the links in it, and what a browser loads to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag names."""
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given and tag != "meta")
        self._style = tag == "style"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.loaded += [given[name] for name in FETCHED.get(tag, ()) if given.get(name)]
        if tag == "link" and given.get("rel") in RELATIONS:
            self.loaded.append(given.get("href", ""))
        self.loaded += urls_of_css(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Note what a style sheet within the page names."""
        if self._style:
            self.loaded += urls_of_css(data)


def urls_of_css(text: str) -> list[str]:
    """What a style sheet loads.

    >>> urls_of_css("@import 'a.css'; b { background: url(c.png) }")
    ['a.css', 'c.png']
    """
    return [one or other for one, other in IN_CSS.findall(text)]


def is_elsewhere(target: str) -> bool:
    """Whether a browser has to ask another machine for it.

    >>> [is_elsewhere(t) for t in ("a.css", "data:image/png;base64,AA", "//cdn.org/a.js")]
    [False, False, True]
    """
    parts = urlsplit(target.strip())
    return bool(parts.netloc) or parts.scheme not in ("", "data", "mailto", "about", "javascript")


def foreign(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Resources that would be asked of another machine while a page is looked at."""
    for path, page in pages.items():
        yield from (f"{path}: loads {target}" for target in page.loaded if is_elsewhere(target))
    for path in sorted(site.rglob("*.css")):
        for target in urls_of_css(path.read_text(encoding="utf-8")):
            if is_elsewhere(target):
                yield f"{path.relative_to(site)}: loads {target}"


def broken(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Links within the site, and resources of its pages, that are not there."""
    for path, page in pages.items():
        for target in dict.fromkeys([*page.links, *page.loaded]):
            parts = urlsplit(target)
            if is_elsewhere(target) or parts.scheme:
                continue
            there = (site / path.parent / unquote(parts.path)).resolve() if parts.path else None
            if there is not None and there.is_dir():
                there = there / "index.html"
            if there is not None and not there.is_file():
                yield f"{path}: no file {target}"
                continue
            end = page if there is None else pages.get(there.relative_to(site.resolve()))
            if parts.fragment and end is not None and unquote(parts.fragment) not in end.ids:
                yield f"{path}: no anchor {target}"


def read(site: Path) -> dict[Path, Page]:
    """The pages of a site, by their path in it."""
    return {
        path.relative_to(site): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts[:1]
    }


def faults(site: Path) -> list[str]:
    """Every fault of a built site, one line each."""
    pages = read(site)
    return [*foreign(site, pages), *broken(site, pages)]


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads somewhere, nothing is loaded from elsewhere")
    sys.exit(bool(found))
