"""A short text of objects that hold tensors."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor


class Shown:
    """A dataclass that prints its tensors by their shapes."""

    def __repr__(self) -> str:
        inside = (f"{f.name}={_short(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(inside)})"


def _short(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)
