"""The one place where argument errors are worded: the rule, what was given, the remedy."""

from __future__ import annotations

import difflib
import math
import numbers as numeric
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from loraone_theory.core.arrays import Array as Array
from loraone_theory.core.arrays import broadcastable as broadcastable
from loraone_theory.core.arrays import device as device
from loraone_theory.core.arrays import dtype as dtype
from loraone_theory.core.arrays import expands_to as expands_to
from loraone_theory.core.arrays import same_kind as same_kind
from loraone_theory.core.arrays import shapes_match as shapes_match
from loraone_theory.core.arrays import tensor as tensor
from loraone_theory.core.wording import kind, shown

LISTED = 500  # characters of a list of options that a message repeats
MOST_SEEDS = 1_000_000
LARGEST = 2**63 - 1  # the largest integer that a tensor holds


def choice(name: str, given: str, options: Iterable[str]) -> str:
    """`given` if it is one of `options`, else TypeError or ValueError with the nearest of them."""
    known = list(options)
    listed = ", ".join(known)
    if len(listed) > LISTED:
        listed = f"{', '.join(known[:8])}, … ({len(known)} in all)"
    if not isinstance(given, str):
        raise TypeError(
            f"{name} must be a string, one of {listed}; got {shown(given)} of type {kind(given)}"
        )
    if given in known:
        return given
    if not known:
        raise ValueError(f"{name} must be left out, for there is none; got {shown(given)}")
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {listed}; got {shown(given)}{hint}")


def choices(name: str, given: Iterable[str], options: Iterable[str]) -> None:
    """Refuse what `choice` refuses in a list; the error names it as one of `name`."""
    known = list(options)
    for each in given:
        choice(f"each of {name}", each, known)


def instance(name: str, given: Any, wanted: type, remedy: str = "") -> Any:
    """`given` if it is a `wanted`, else TypeError."""
    if not isinstance(given, wanted):
        tail = f"; {remedy}" if remedy else ""
        raise TypeError(
            f"{name} must be a {wanted.__name__}; got {shown(given)} of type {kind(given)}{tail}"
        )
    return given


def members(name: str, given: Any, protocol: type, remedy: str) -> Any:
    """`given` if it has the members of the protocol, else TypeError with what is missing."""
    wanted = [member for member in vars(protocol) if not member.startswith("_")]
    declared = set().union(*map(vars, type(given).__mro__))
    missing = [member for member in wanted if member not in declared]
    if missing:  # of its class, whose members take less to list
        there = set(dir(given))
        missing = [member for member in missing if member not in there]
    if missing:
        raise TypeError(
            f"{name} must have the members of a {protocol.__name__}; got {shown(given)} of type "
            f"{kind(given)} without {', '.join(missing)}; {remedy}"
        )
    return given


def flag(name: str, given: Any) -> bool:
    """True or False; nothing else is taken for one of them."""
    if not isinstance(given, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {shown(given)} of type {kind(given)}")
    return bool(given)


def function(name: str, given: Any) -> Callable[..., Any]:
    """Something that can be called."""
    if not callable(given):
        raise TypeError(f"{name} must be callable; got {shown(given)} of type {kind(given)}")
    return given


def sequence(name: str, given: Any, of: str = "values") -> list[Any]:
    """A list, tuple, range or one-dimensional array as a list; a single value is refused."""
    if isinstance(given, (Tensor, np.ndarray)) and given.ndim == 1:
        return list(given.tolist())
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(
            f"{name} must be a sequence of {of}; got {shown(given)} of type {kind(given)}; "
            f"put it in a list"
        )
    return list(given)


def integer(name: str, given: Any, *, least: int, remedy: str = "") -> int:
    """`given` as an int >= `least`, else TypeError or ValueError."""
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {shown(given)} of type {kind(given)}")
    if given < least:
        tail = f"; {remedy}" if remedy else ""
        raise ValueError(f"{name} must be >= {least}; got {name}={shown(given)}{tail}")
    if given > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST}; got {name}={shown(given)}; lower it")
    return int(given)


def rank(given: Any, *, d: int, k: int, name: str = "rank") -> int:
    """A rank with 1 <= rank <= min(d, k)."""
    d, k = integer("d", d, least=1), integer("k", k, least=1)
    value = integer(name, given, least=1)
    if value > min(d, k):
        raise ValueError(
            f"{name} must satisfy 1 <= {name} <= min(d, k); got {name}={value} with d={d}, k={k}"
        )
    return value


def rank_between(name: str, given: Any, rank: int) -> int:
    """A rank to end at: 1 <= given <= rank."""
    value = integer(name, given, least=1)
    if value > rank:
        raise ValueError(
            f"{name} must satisfy 1 <= {name} <= rank; got {name}={value} with rank={rank}; "
            f"lower {name} or raise the rank"
        )
    return value


def number(name: str, given: Any, *, positive: bool = False, remedy: str = "") -> float:
    """A finite real number, > 0 where `positive`, >= 0 otherwise."""
    value = real(name, given)
    sign = "> 0" if positive else ">= 0"
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        tail = f"; {remedy}" if remedy else ""
        raise ValueError(f"{name} must be finite and {sign}; got {name}={shown(given)}{tail}")
    return value


def real(name: str, given: Any) -> float:
    """A real number as a float: of Python or numpy, or the only entry of a 0-d array or tensor.

    Booleans, strings, complex numbers and masked or longer arrays are refused.
    """
    if type(given) is float:
        return given
    if isinstance(given, (Tensor, np.ndarray)) and not isinstance(given, np.ma.MaskedArray):
        unfit = given.ndim > 0 or (isinstance(given, Tensor) and given.is_meta)
        found = given if unfit else given.item()
    else:
        found = given
    if isinstance(found, (bool, np.bool_)) or not isinstance(found, numeric.Real):
        raise TypeError(f"{name} must be a number; got {shown(given)} of type {kind(given)}")
    try:
        return float(found)
    except OverflowError:
        return math.inf


def number_or_tensor(name: str, given: Any) -> float | Tensor:
    """A finite number >= 0, or a tensor of them."""
    if not isinstance(given, (Tensor, np.ndarray)):
        return number(name, given)
    found = tensor(name, given, least_dims=0)
    if bool((found < 0).any()):
        raise ValueError(f"{name} must be >= 0; got a tensor with {float(found.min())}")
    return found


def below_one(name: str, given: Any) -> float:
    """A number in [0, 1)."""
    value = number(name, given)
    if value >= 1:
        raise ValueError(f"{name} must satisfy 0 <= {name} < 1; got {name}={value}; lower it")
    return value


def fraction(name: str, given: Any) -> float:
    """A number strictly between 0 and 1, as probabilities and confidences are."""
    value = real(name, given)
    if not 0 < value < 1:
        raise ValueError(
            f"{name} must lie strictly between 0 and 1; got {name}={shown(given)}; "
            "give it as a fraction, for example 0.99"
        )
    return value


def at_least(name: str, given: Any, least: float) -> float:
    """A finite number >= `least` > 0."""
    value = number(name, given)
    if value < least:
        raise ValueError(f"{name} must be >= {least:g}; got {name}={value:g}; raise it")
    return value


def standard_deviation(name: str, given: Any) -> Any:
    """One positive number, or a tensor of them that a batch of runs is made with."""
    if isinstance(given, (list, tuple)):
        raise TypeError(
            f"{name} of a method is one number; got {given!r}; "
            f"pass the sequence to simulate({name}=...) to run all of them in one batch"
        )
    if not isinstance(given, Tensor):
        return number(name, given, positive=True)
    if not bool((tensor(name, given, least_dims=0) > 0).all()):
        raise ValueError(f"{name} must be > 0; got a tensor with {float(given.min())}")
    return given


def numbers(name: str, given: Any, *, positive: bool = False, remedy: str = "") -> Any:
    """A number, or a non-empty flat sequence of numbers as a list of floats."""
    if isinstance(given, (Tensor, np.ndarray)) and given.ndim > 0:
        given = tensor(name, given, least_dims=1, integers=True).tolist()
        if isinstance(given[0], list):
            raise ValueError(
                f"{name} must be a number or a flat sequence; got a matrix; flatten it"
            )
    if isinstance(given, (list, tuple, range)):
        if not given:
            raise ValueError(f"{name} must hold at least one value; got an empty sequence")
        return [number(name, value, positive=positive, remedy=remedy) for value in given]
    return number(name, given, positive=positive, remedy=remedy)


def seeds(given: Any) -> tuple[int, ...]:
    """A list of different seeds >= 0 as a tuple.

    An int is refused, for it could also mean a count. So is a seed that comes twice: it draws the
    same numbers again, so the mean over trials would look more certain than it is. That several
    instances start alike is said by one seed for all of them.
    """
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        raise TypeError(
            f"seeds must be a list of seeds; got the integer {given}; write seeds=[{given}] for "
            f"the one seed {given}, or seeds=range({given}) for as many as that"
        )
    if isinstance(given, (Tensor, np.ndarray)) and given.ndim == 1:
        given = given.tolist()
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(f"seeds must be a list of seeds; got {shown(given)} of type {kind(given)}")
    if len(given) > MOST_SEEDS:
        raise ValueError(
            f"seeds must hold at most {MOST_SEEDS:,} seeds; got {len(given):,}; "
            "take them in several batches"
        )
    values = tuple(integer("seeds", seed, least=0) for seed in given)
    if not values:
        raise ValueError("seeds must hold at least one seed; got none")
    if len(set(values)) < len(values):
        (twice, _), *_ = Counter(values).most_common(1)
        raise ValueError(
            f"seeds must differ, for a seed that comes twice draws the same trial again; got "
            f"{twice} more than once; give other seeds, or one for all instances: seeds=[{twice}]"
        )
    return values
