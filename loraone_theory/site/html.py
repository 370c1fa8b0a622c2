"""Pages of HTML in Markdown."""

from __future__ import annotations

from typing import NamedTuple

from loraone_theory.core.html import Html


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
