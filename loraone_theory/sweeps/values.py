"""Values of a sweep as they are given, in Python or in a TOML file, and as they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from loraone_theory.core import validate
from loraone_theory.core.wording import kind, shown
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import METHODS, Method
from loraone_theory.methods.schedules import SCHEDULES
from loraone_theory.problems.recipes import SAMPLERS
from loraone_theory.sweeps.keywords import CHECKS
from loraone_theory.sweeps.own import written

BEST = "best"
# Axes written by their ends: name -> what makes the values.
SPANS: dict[str, Callable[..., Any]] = {
    "range": np.arange,
    "linspace": np.linspace,
    "geomspace": np.geomspace,
}


def along(name: str, given: Any) -> list[Any]:
    """The values of an axis: a list, an array, or {"linspace": [0, 1, 11]} and the like.

    >>> along("seed", {"range": [0, 3]})
    [0, 1, 2]

    Raises:
        TypeError, ValueError: neither, or no value at all.
    """
    if isinstance(given, Mapping):
        if len(given) != 1:
            raise ValueError(
                f"axis {name!r} must be a list, or one of {', '.join(SPANS)} with its numbers; got "
                f"{shown(given)}"
            )
        (how, numbers), *_ = given.items()
        make = SPANS[validate.choice(f"axis {name!r}", how, SPANS)]
        ends = validate.sequence(f"{how} of axis {name!r}", numbers, "numbers")
        for end in ends:
            validate.real(f"{how} of axis {name!r}", end)
        if not ends or len(ends) > 3:
            raise ValueError(f"{how} of axis {name!r} takes up to three numbers; got {ends}")
        given = make(*ends).tolist()
    found = validate.sequence(f"axis {name!r}", given, "values")
    if not found:
        raise ValueError(f"axis {name!r} must hold at least one value; got none; leave it out")
    return [value.item() if isinstance(value, np.generic) else value for value in found]


def used(name: str, given: Any) -> Any:
    """One value as the run takes it, checked where the name says what it has to be.

    Raises:
        TypeError, ValueError: it breaks a rule.
    """
    if isinstance(given, np.generic):
        given = given.item()
    if name in MAKERS:
        return MAKERS[name](given)
    return CHECKS[name](name, given) if name in CHECKS else given


def _sampler(given: Any) -> Any:
    if callable(given):
        return given
    return SAMPLERS[validate.choice("sampler", given, SAMPLERS)]


def _method(given: Any) -> Any:
    """A method, or its name and hyper-parameters: made when those that vary are known."""
    if isinstance(given, Method):
        return given
    if isinstance(given, str):
        return {"name": validate.choice("method", given, METHODS)}
    table = validate.instance("method", given, Mapping, 'write "lora", or {name = "lora+", ...}')
    if "name" not in table:
        raise ValueError(f'method must have a name; got {shown(dict(table))}; add name = "lora"')
    validate.choice("method", table["name"], METHODS)
    return dict(table)


def _learning_rate(given: Any) -> Any:
    if callable(given) or given == BEST:
        return given
    if isinstance(given, str):
        raise ValueError(
            f"learning_rate must be a number > 0, a schedule or {BEST!r}; got {given!r}"
        )
    if not isinstance(given, Mapping):
        return validate.number("learning_rate", given, positive=True)
    if "schedule" not in given:
        raise ValueError(
            f"a learning rate in a table must name its schedule; got {shown(dict(given))}; "
            'write {schedule = "cosine", peak = 0.1, steps = 500}'
        )
    name = validate.choice("schedule", given["schedule"], SCHEDULES)
    arguments = {key: value for key, value in given.items() if key != "schedule"}
    try:
        return SCHEDULES[name](**arguments)
    except TypeError as error:
        raise ValueError(f"schedule {name!r} does not take {shown(arguments)}: {error}") from None


def _until(given: Any) -> Any:
    if given is None or isinstance(given, Until):
        return given
    table = validate.instance("until", given, Mapping, 'write {record = "loss", level = 1e-6}')
    for key in table:
        validate.choice("key of until", key, Until.__dataclass_fields__)
    missing = [key for key in ("record", "level") if key not in table]
    if missing:
        raise ValueError(f"until must have {' and '.join(missing)}; got {shown(dict(table))}")
    return Until(**table)


MAKERS = {
    "sampler": _sampler,
    "method": _method,
    "learning_rate": _learning_rate,
    "until": _until,
}


def label(name: str, value: Any) -> Any:
    """A value as a coordinate: a number or a text, the same for the same value.

    >>> label("method", {"name": "lora+", "ratio": 4}), label("rank", 2)
    ('lora+(ratio=4)', 2)
    """
    if isinstance(value, Method):
        return value.name
    if name == "method" and isinstance(value, Mapping):
        hyper = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return value["name"] + (f"({hyper})" if hyper else "")
    if isinstance(value, (bool, int, float, str)):
        return value
    found = written(name, value)
    if isinstance(found, str):
        return found
    if isinstance(found, Mapping) and "own" in found:
        return f"{found['own']}#{found['fingerprint']}"
    if isinstance(found, Mapping) and "schedule" in found:
        return repr(value)
    return json.dumps(found)


def unfit(name: str, given: Any) -> TypeError:
    """The error for what is not a table of names."""
    return TypeError(
        f"{name} must be a table of values by name; got {shown(given)} of type {kind(given)}"
    )
