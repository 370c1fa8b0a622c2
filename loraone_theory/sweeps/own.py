"""What stands for a value of a sweep in its configuration: JSON, or the fingerprint of code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from loraone_theory.core.fingerprint import LENGTH, fingerprint
from loraone_theory.core.plain import plain
from loraone_theory.core.wording import kind, shown
from loraone_theory.dynamics import rates
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import Method
from loraone_theory.problems.recipes import SAMPLERS

PLAIN = (bool, int, float, str, type(None))
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
HERE = Path(__file__).resolve().parent.parent


def written(name: str, value: Any) -> Any:
    """A value of a sweep as JSON has it; two of the same text do the same.

    A function of the user's own stands as its name and a fingerprint of its code, of what it
    captures, and of the user's own functions and plain values that it reaches by a global name.

    Raises:
        TypeError: it cannot be told from another one by what it holds.

    >>> written("rank", np.int64(3))
    3
    >>> written("learning_rate", lambda t: 0.1)["own"]
    '<lambda>'
    """
    if isinstance(value, Method):
        return {"name": value.name, **_owned(name, value)}
    if isinstance(value, Until):
        return dataclasses.asdict(value)
    if isinstance(value, Record):
        if RECORDS.get(value.name) is value:
            return value.name
        return {"name": value.name, **_own(name, value.measure)}
    if callable(value):
        if value in SAMPLERS.values():
            return next(known for known, sampler in SAMPLERS.items() if sampler is value)
        if type(value) in rates.OURS:
            return rates.described(value)
        return _own(name, value)
    if isinstance(value, Mapping):
        return {str(key): written(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [written(name, item) for item in value]
    try:
        return plain(value)
    except TypeError:
        raise _unknown(name, value) from None


def _owned(name: str, method: Method) -> dict[str, Any]:
    """The settings of a method; parts of the user's own are looked into."""
    found = dict(plain(method.hyper))
    for part, label in ((method.start, "init"), (method.train, "rule")):
        if part.own is not None:
            found[label] = {**found[label], **_own(name, part.factory)}
    return found


def _own(name: str, value: Any) -> dict[str, Any]:
    called = getattr(value, "__qualname__", type(value).__qualname__)
    return {"own": called.rpartition(".")[2], "fingerprint": _whole(name, value)}


def _whole(name: str, value: Any) -> str:
    pieces = list(_reached(name, value, set()))  # refuses what has no text of its own
    digest = hashlib.sha256(fingerprint(value).encode())
    for piece in pieces:
        digest.update(piece.encode() + b"\0")
    return digest.hexdigest()[:LENGTH]


def _reached(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    """Of everything that a function, or an object that is called, is made of."""
    if id(value) in seen or isinstance(value, (*PLAIN, Tensor, np.ndarray, np.generic)):
        return
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        if _is_installed(value):
            yield f"{value.__module__}.{value.__qualname__}"
        for label, found in () if _is_installed(value) else _globals_of(value):
            yield f"{label}={fingerprint(found)}"
            yield from _reached(name, found, seen)
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        for held in (cells, value.__defaults__ or (), value.__kwdefaults__ or {}):
            yield from _reached(name, held, seen)
    elif isinstance(value, functools.partial):
        yield from _reached(name, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        yield from _reached(name, (value.__func__, value.__self__), seen)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _reached(name, item, seen)
    elif isinstance(value, Mapping):
        yield from _reached(name, tuple(value.values()), seen)
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        yield getattr(value, "__qualname__", value.__name__)
    elif hasattr(value, "__dict__") and not ADDRESS.search(_text(value)):
        called = tuple(m for label, m in vars(type(value)).items() if label == "__call__")
        yield from _reached(name, (vars(value), called), seen)
    else:
        raise _unknown(name, value)


def _text(value: Any) -> str:
    """Its repr, unless that is the usual one, of an address, and what it holds stands for it."""
    return "" if type(value).__repr__ is object.__repr__ else repr(value)


def _globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Functions and plain values that the code reaches by a name of its module."""
    space = inspect.getclosurevars(function).globals
    for label, found in sorted(space.items()):
        if isinstance(found, (types.FunctionType, *PLAIN, tuple, list, dict, Tensor, np.ndarray)):
            yield label, found


def _is_installed(function: types.FunctionType) -> bool:
    """Whether it comes with a package, whose version stands for its code."""
    module = sys.modules.get(function.__module__)
    path = Path(getattr(module, "__file__", None) or "").resolve()
    return "site-packages" in path.parts or HERE in path.parents


def _unknown(name: str, value: Any) -> TypeError:
    return TypeError(
        f"{name} must be a value that JSON has, or a function, so that a cell can be told from "
        f"others when the sweep goes on; got {shown(value)} of type {kind(value)}; use a function "
        "(def or lambda) or functools.partial of one"
    )
