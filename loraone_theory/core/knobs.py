"""Knobs of experiments: the bounds of a knob stand at the knob."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field
from typing import Any

from loraone_theory.core import validate
from loraone_theory.core.wording import shown

RULE = "rule"  # where a field's metadata hold it


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a knob may be told.

    Args:
        least: the least number; None is 1 for integers, and anything above 0 for other numbers.
        empty: whether a tuple may be empty.
        repeats: whether a value may stand in a tuple twice.
    """

    least: float | None = None
    empty: bool = False
    repeats: bool = False

    def check(self, name: str, given: Any) -> None:
        """Refuse a number or tuple that breaks the rule; texts and flags in them may be any.

        Raises:
            ValueError: it does.
        """
        if not isinstance(given, (tuple, list)):
            self._check_number(name, given)
            return
        if not given and not self.empty:
            raise ValueError(f"{name} must hold at least one value; got none; give it one")
        twice = [x for i, x in enumerate(given) if x in given[:i]]
        if twice and not self.repeats:
            raise ValueError(
                f"{name} must hold different values; got {shown(twice[0])} more than once; "
                "leave it out"
            )
        for x in given:
            for number in x if isinstance(x, (tuple, list)) else (x,):
                self._check_number(name, number)

    def _check_number(self, name: str, given: Any) -> None:
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            return
        if math.isnan(given):
            raise ValueError(f"{name} must hold numbers; got NaN in {name}; replace it")
        if self.least is not None and given < self.least:
            raise ValueError(
                f"{name} must be >= {self.least:g}; got {name}={shown(given)}; raise it"
            )
        if self.least is None and isinstance(given, int):
            validate.integer(name, given, least=1, remedy="raise it")
        if self.least is None and given <= 0:
            raise ValueError(f"{name} must be > 0; got {name}={shown(given)}; raise it")


def knob(
    default: Any, *, least: float | None = None, empty: bool = False, repeats: bool = False
) -> Any:
    """A field of a Config with a rule of its own; `least=-math.inf` lets any number pass.

    >>> @dataclass
    ... class Config:
    ...     damping: float = knob(0.0, least=0)
    >>> Config().damping
    0.0
    """
    rule = Rule(least=least, empty=empty, repeats=repeats)
    return field(default=default, metadata={RULE: rule})


def check(knob: Field[Any], given: Any) -> None:
    """Refuse what the rule of the knob refuses, or the usual rule where it has none.

    Raises:
        ValueError: the value breaks it.
    """
    knob.metadata.get(RULE, Rule()).check(knob.name, given)
