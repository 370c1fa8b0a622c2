"""How a message shows what it refuses."""

from __future__ import annotations

from typing import Any

LENGTH = 80  # characters of a refused value that a message repeats


def shown(given: Any) -> str:
    """`given` on one line, cut to `LENGTH` characters.

    >>> shown(["a", 1])
    "['a', 1]"
    """
    if isinstance(given, int) and given.bit_length() > 200:
        return f"an integer of {given.bit_length()} bits"
    if isinstance(given, float):
        return f"{given!s}"
    text = " ".join(repr(given).split())
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 1]}…"


def kind(given: Any) -> str:
    """The name of the type of `given`.

    >>> kind(1.0)
    'float'
    """
    return type(given).__name__
