"""Verify, by computation, the theory of low-rank fine-tuning.

Letters, as in the paper: d input width, k output width, N samples, r LoRA rank, r* true rank of
the shift Δ, W pre-trained weight, A (d×r) and B (r×k) the factors, s their scale, Σ̂ = XᵀX/N,
G the one-step full gradient −∇_W L at W, η the learning rate, α the standard deviation of A₀,
κ the condition number of Δ, λ a damping, E = learned shift − Δ.

Public names are those of `__init__.pyi`, each imported when it is first asked for.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
# Public name -> the module that has it.
_HOMES = {
    alias.name: str(node.module)
    for node in _STUB.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        try:
            found: Any = importlib.import_module(f"{home}.{name}")
        except ModuleNotFoundError as missing:
            if missing.name != f"{home}.{name}":
                raise
            found = getattr(importlib.import_module(home), name)
    elif name == "theorems":  # the former name of claims, which says so itself
        return importlib.import_module(f"{__name__}.theorems")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
