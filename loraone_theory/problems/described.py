"""How problems show themselves: one line, or a small table in a notebook."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from loraone_theory.core.shown import html_table
from loraone_theory.problems.base import Facts, Problem, facts
from loraone_theory.problems.drawn import DEFAULTS

SHOWN_SEEDS = 4


def contents(problem: Problem) -> dict[str, str]:
    """What is worth a line of a table, by name."""
    known: Facts = facts(problem)
    found: dict[str, Any] = {"d": problem.d, "k": problem.k}
    found |= {"true_rank": known.true_rank, "samples": known.samples}
    if problem.batch_shape:
        found["instances"] = tuple(problem.batch_shape)
    if known.seeds is not None:
        found["seeds"] = _seeds(known.seeds)
    if known.pretrained is not None:
        found["pretrained"] = True
    if known.matrix_free:
        found["matrix_free"] = True
    if known.test_loss is not None:
        found["held_out"] = True
    found["dtype"] = str(problem.like.dtype).removeprefix("torch.")
    if problem.like.device.type != "cpu":
        found["device"] = problem.like.device
    return {name: str(value) for name, value in found.items() if value is not None}


def _seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) <= SHOWN_SEEDS:
        return str(tuple(seeds))
    return f"({seeds[0]}, {seeds[1]}, …, {seeds[-1]})"


def call(recipe: Mapping[str, Any]) -> str:
    """The call that drew a problem, to paste; arguments that have their default are left out."""
    usual = DEFAULTS[recipe["sampler"]]
    given = {name: value for name, value in recipe.items() if name != "sampler"}
    kept = {n: v for n, v in given.items() if v is not None and not (n in usual and usual[n] == v)}
    inside = ", ".join(f"{name}={_literal(value)}" for name, value in kept.items())
    return f"{recipe['sampler']}({inside})"


def _literal(value: Any) -> str:
    if isinstance(value, list) and len(value) > SHOWN_SEEDS:
        steps = {b - a for a, b in itertools.pairwise(value)}
        if steps == {1}:
            return f"range({value[0]}, {value[-1] + 1})"
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


class Described:
    """A problem that prints as one line: the call that drew it, or what it consists of.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=range(9))
    sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=range(0, 9))
    """

    def __repr__(self) -> str:
        recipe = facts(self).recipe  # type: ignore[arg-type]
        if recipe is not None:
            return call(recipe)
        inside = ", ".join(f"{name}={value}" for name, value in contents(self).items())  # type: ignore[arg-type]
        return f"{type(self).__name__}({inside})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The same line where IPython and hypothesis would take a dataclass apart."""
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        """A table of two columns, for notebooks."""
        return html_table(type(self).__name__, contents(self))  # type: ignore[arg-type]
