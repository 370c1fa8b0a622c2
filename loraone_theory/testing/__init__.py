"""For tests of one's own: checks of rules and initialisations, and hypothesis strategies.

`check_rule`, `check_init`, `check_record` and `check_problem` hold what a user made to what the
loop relies on, `check_claim` to what the judge does. The strategies of `testing.strategies` draw
problems, factors and matrices and need hypothesis; these and `check_claim` are loaded when they are
first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from loraone_theory.testing.base import ContractError
from loraone_theory.testing.inits import check_init
from loraone_theory.testing.problem_contract import check_problem
from loraone_theory.testing.records import check_record
from loraone_theory.testing.rules import check_rule

STRATEGIES = (
    "SEEDS",
    "Bounds",
    "Shape",
    "degenerate_factors",
    "factors",
    "gaussian_factors",
    "graded_factors",
    "invertible",
    "linear_population",
    "loss_problems",
    "orthogonal",
    "problems",
    "relu_problems",
    "shapes",
    "spectra",
)
RUNS = ("Stable", "runs", "stable_methods")

# Name -> the module that has it, for what is not loaded with the package.
LATER = {
    "check_claim": "claims",
    **dict.fromkeys(STRATEGIES, "strategies"),
    **dict.fromkeys(RUNS, "drawn_runs"),
}

__all__ = [
    "ContractError",
    "check_claim",
    "check_init",
    "check_problem",
    "check_record",
    "check_rule",
]


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module(f"{__name__}.{LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
