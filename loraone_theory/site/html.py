"""Pieces of HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as _escape
from typing import NamedTuple


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Text as HTML; what is HTML stays as it is.

    >>> escaped("a < b"), escaped(Html("<b>"))
    ('a &lt; b', '<b>')
    """
    return value if isinstance(value, Html) else Html(_escape(str(value), quote=True))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element; attributes that are None are left out, `class_` is class.

    >>> tag("a", "x < y", href="#z", class_="key", title=None)
    '<a href="#z" class="key">x &lt; y</a>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in ("input", "img") else f"</{name}>"
    return Html(f"<{name}{given}>{''.join(map(escaped, inside))}{end}")


def joined(parts: Iterable[object], by: str = "") -> Html:
    """HTML of the parts one after the other."""
    return Html(by.join(escaped(part) for part in parts))


class Page(NamedTuple):
    """A page in MyST Markdown.

    Args:
        name: its path in the folder of all, without the suffix.
        text: what the file holds.
    """

    name: str
    text: str


def page(name: str, title: str, *parts: str, **about: str) -> Page:
    """A page of HTML and Markdown under a title, which is Markdown."""
    front = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in about.items())
    fence = "`" * 8
    texts = [
        f"{fence}{{raw}} html\n{part}\n{fence}\n" if isinstance(part, Html) else f"{part}\n"
        for part in parts
    ]
    return Page(name, "\n".join([f"---\n{front}---\n", f"# {title}\n", *texts]))


def upwards(name: str) -> str:
    """The way from a page to the folder of all pages.

    >>> upwards("index"), upwards("lora-one/theorem-3.2/alpha")
    ('', '../../')
    """
    return "../" * name.count("/")
