"""Which loop carries runs out: torch's kernels, or loops that numba compiles for a few classes."""

from __future__ import annotations

import importlib

from loraone_theory.core import validate
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.covariance import Dense, Diagonal, Identity
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.relu.problem import ReLUProblem

ENGINES = ("torch", "numba")


def check(engine: str, problem: Problem, method: Method, *, reduced: bool, all_rows: bool) -> None:
    """Refuse the compiled loops where there are none; torch does everything.

    Args:
        engine: of `ENGINES`.
        problem: with its offset.
        method: at its rank.
        reduced: whether the problem is reduced first.
        all_rows: every step takes all rows.

    Raises:
        ValueError: this problem or method has no compiled loop.
        MissingExtra: numba is not installed.
    """
    validate.choice("engine", engine, ENGINES)
    if engine == "torch":
        return
    if reason := _unserved(problem, method, reduced=reduced, all_rows=all_rows):
        raise ValueError(
            "engine='numba' must be asked for what it has loops for: plain descent of A and B on a "
            "reduced LinearProblem without noise, and any method on a ReLUProblem, with all rows "
            f"on the CPU; got {reason}; leave engine out"
        )
    importlib.import_module("loraone_theory.core.compiled")


def _unserved(problem: Problem, method: Method, *, reduced: bool, all_rows: bool) -> str:
    """Why there is no compiled loop; "" where there is one."""
    if problem.like.device.type != "cpu":
        return f"a problem on {problem.like.device.type}"
    if not all_rows:
        return "batch_size, some rows a step"
    if type(problem) is ReLUProblem:
        return ""
    if type(problem) is not LinearProblem:
        return f"a {type(problem).__name__}"
    descent = method.facts.descent
    if descent is None or descent.inverses is not None or not method.is_pair:
        return f"method {method.name!r}"
    if problem.noise is not None:
        return "label noise"
    kinds = (Dense, Diagonal, Identity) if reduced else (Diagonal, Identity)
    if not isinstance(problem.covariance, kinds):
        how = "" if reduced else " and reduce='never'"
        return f"a {type(problem.covariance).__name__.lower()} covariance{how}"
    return ""
