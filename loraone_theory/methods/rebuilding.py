"""A method again from what a record holds of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.fingerprint import fingerprint
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.methods import parts, symmetric
from loraone_theory.methods.base import (
    GIVEN,
    Alpha,
    Method,
    RuleFactory,
    around_part,
    init_part,
    rule_part,
)
from loraone_theory.methods.inits import Init
from loraone_theory.methods.parametrisations import PARAMETRISATIONS
from loraone_theory.methods.parts import Part

FORMS = {**PARAMETRISATIONS, **symmetric.FORMS}


def rebuild(
    name: str,
    hyper: Mapping[str, Any],
    *,
    init: Init | None = None,
    rule: RuleFactory | None = None,
    initial: Factors | None = None,
) -> Method:
    """The method called `name` whose `Method.hyper` was `hyper`, also after a trip through JSON.

    Args:
        name: `Method.name`.
        hyper: `Method.hyper`.
        init: the user's own initialisation, where it had one.
        rule: the user's own factory of the rule, where it had one.
        initial: the factors that it was started at, where these were given.

    Raises:
        ValueError: a part of the user's own is missing, or is not the one that was recorded; or
            `hyper` is of a sweep over init_std.

    >>> from loraone_theory import methods
    >>> method = methods.lora_plus(ratio=4.0)
    >>> methods.rebuild(method.name, method.hyper).hyper == method.hyper
    True
    """
    validate.instance("name", name, str)
    for label, own in (("init", init), ("rule", rule)):
        if own is not None:
            validate.function(label, own)
    validate.instance("hyper", hyper, Mapping, "pass Method.hyper")
    scale, around = hyper["scale"], hyper.get("around")
    if initial is None:
        start = _part("init", hyper["init"], init, _either(init_part), parts.own_init)
    else:
        start = _to_come(hyper["init"], initial)
    made = Method(
        name,
        start,
        FORMS[hyper["parametrisation"]],
        _part("rule", hyper["rule"], rule, _either(rule_part), parts.own_rule),
        scaling=Alpha(**scale) if isinstance(scale, Mapping) else scale,
        init_std=_std(hyper["init_std"]),
        offset=hyper["offset"],
        around=None if around is None else around_part(**_arguments(around)),
    )
    return made if initial is None else made.started_at(initial)


def _either(of_table: Callable[..., Part]) -> Callable[..., Part]:
    """Parts of the tables, or of the symmetric methods, which stand beside them."""
    return lambda name, **hyper: (
        symmetric.PARTS[name](**hyper) if name in symmetric.PARTS else of_table(name, **hyper)
    )


def _to_come(held: Mapping[str, Any], initial: Factors) -> Part:
    """In place of given factors, which have to be those that were recorded."""
    found = fingerprint(tuple(checked("initial", initial)))
    if held.get("fingerprint") != found:
        raise ValueError(
            f"the initial factors handed in are not what the record holds, {held}: their "
            f"fingerprint is {found}; use those that the method was started at, or leave them out"
        )
    return Part(GIVEN, lambda: None, {})


def _std(held: Any) -> Any:
    """α from plain JSON types."""
    if not isinstance(held, (list, tuple)):
        return held
    if not isinstance(held[0], (list, tuple)):
        raise ValueError(
            f"init_std of one method is one number, and this record is of runs with each of {held};"
            f" pass one of them: hyper | {{'init_std': {held[0]}}}"
        )
    return torch.tensor(held, dtype=torch.float64)


def _part(
    kind: str,
    held: Mapping[str, Any],
    given: Any,
    of_table: Callable[..., Part],
    own: Callable[..., Part],
) -> Part:
    hyper = _arguments(held)
    name, recorded = hyper.pop("name"), hyper.pop("fingerprint", None)
    if recorded is None:
        return of_table(name, **hyper)
    if given is None:
        raise ValueError(
            f"the {kind} {name!r} was made by a user and is not in the record; hand it in again: "
            f"{kind}=..."
        )
    if fingerprint(given) != recorded:
        raise ValueError(
            f"the {kind} {name!r} handed in is not the one recorded: its fingerprint is "
            f"{fingerprint(given)}, that of the record {recorded}; use the code it was made with"
        )
    return own(name, given, hyper) if kind == "rule" else own(name, given)


def _arguments(held: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments from plain JSON types."""
    found: dict[str, Any] = {}
    for key, value in held.items():
        if key == "svd":
            value = SVDOptions(**value)
        elif key == "covariance" and value is not None:
            value = torch.tensor(value, dtype=torch.float64)
        found[key] = tuple(value) if isinstance(value, list) else value
    return found
