"""A short text of objects that hold tensors, and a small table of them for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import fields
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor

LONGEST = 60  # characters of a value
FEW = 4  # numbers that are shown instead of their shape


def html_table(caption: str, rows: Mapping[str, Any]) -> str:
    """Two columns, names and values.

    >>> "<th style='text-align:left'>d &gt;</th>" in html_table("Problem", {"d >": 3})
    True
    """
    left = "style='text-align:left'"
    inside = "".join(
        f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption>{html.escape(caption)}</caption>{inside}</table>"


class InTable:
    """An object that a notebook shows as a table of what `_told` says."""

    def _told(self) -> Mapping[str, Any]:
        """Name -> value, a line each."""
        return {f.name: short(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._told())


class Shown(InTable):
    """A dataclass that prints its tensors by their shapes, and few numbers as they are."""

    def __repr__(self) -> str:
        inside = (f"{name}={value}" for name, value in InTable._told(self).items())
        return f"{type(self).__name__}({', '.join(inside)})"


def short(value: Any) -> str:
    """A value in a few words: an array's shape, a small vector's numbers, a function's name.

    >>> short(np.zeros((3, 4))), short(np.array([0.5, 1.0])), short("a" * 100)[-3:]
    ('(3, 4)', '[0.5, 1]', 'aa…')
    """
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim > 2 or value.shape[:1] == () or np.prod(value.shape) > FEW:
            return str(tuple(value.shape))
        numbers = (f"{float(x):.6g}" for x in value.reshape(-1))
        return f"[{', '.join(numbers)}]"
    if isinstance(value, (FunctionType, MethodType)):
        return value.__name__  # what Python prints ends in an address
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
