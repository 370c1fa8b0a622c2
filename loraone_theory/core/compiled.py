"""Functions that numba compiles: how, and where they may call each other.

A compiled function is kept beside its file and made anew when that file, or OPTIONS here, changes.
What it calls and every number of its module that it uses is part of it, so compiled functions only
call those of their own file, and take what other files define as arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from loraone_theory.core.extras import extra

with extra("fast", "leave engine out"):
    import numba

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    # Sums may go in any order and products into sums; NaN and infinities stay what they are.
    "fastmath": ("contract", "nsz", "reassoc"),
}


def compiled(function: Callable[..., Any]) -> Any:
    """The function, compiled when it is first called and kept on disk.

    numba keeps it under its name, and does not look at the options: so they are part of that name.
    """
    name = function.__qualname__
    function.__qualname__ = f"{name}-{_digest()}"
    try:
        fastmath = set(OPTIONS["fastmath"])
        return numba.njit(cache=True, **{**OPTIONS, "fastmath": fastmath})(function)
    finally:
        function.__qualname__ = name


def _digest() -> str:
    return hashlib.sha256(repr(sorted(OPTIONS.items())).encode()).hexdigest()[:8]
