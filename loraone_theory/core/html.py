"""Pieces of HTML and of SVG."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape as _escape


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


def label(x: float, y: float, text: str, **attributes: object) -> Html:
    """A text of a figure.

    >>> label(1, 2.25, "κ", text_anchor="end")
    '<text x="1.0" y="2.2" text-anchor="end">κ</text>'
    """
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line of a figure.

    >>> line(0, 1, 2, 1, "axis")
    '<path d="M0.0 1.0L2.0 1.0" class="axis"></path>'
    """
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=class_)
