"""What stands for a user's own function or array in a record: a short hash of what it does."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

LENGTH = 16  # hexadecimal digits
ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)
# Their text says all of them.
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)
# What is installed counts by its name: its version is recorded beside.
INSTALLED = (Path(__file__).resolve().parents[1], Path(sysconfig.get_path("stdlib")).resolve())


def fingerprint(thing: Any) -> str:
    """A hash of a function's code, constants and captured values, or of an array's entries.

    What a function of the user's own reaches by a global name counts too: values, functions,
    classes with their methods; modules and what is installed by name alone. Of an object its fields
    count, so of a torch module its weights. Equal for equal text and equal values, also after a
    restart; another Python version compiles to other code.

    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    digest = hashlib.sha256()
    for piece in _Walk().pieces(thing):
        digest.update(piece)
        digest.update(b"\0")
    return digest.hexdigest()[:LENGTH]


class _Walk:
    """What is on the way down, for what holds itself, and the code that has been told."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self._told: set[int] = set()

    def pieces(self, thing: Any) -> Iterator[bytes]:
        """The bytes that stand for a thing."""
        if isinstance(thing, PLAIN):
            yield repr(thing).encode()
        elif isinstance(thing, Tensor):
            yield from self.pieces(thing.detach().cpu().numpy())
        elif isinstance(thing, np.ndarray):
            yield f"{thing.dtype} {thing.shape}".encode()
            yield thing.tobytes()
        elif isinstance(thing, types.ModuleType):
            yield thing.__name__.encode()
        elif id(thing) not in self._above:
            self._above.append(id(thing))
            yield from self._inside(thing)
            self._above.pop()

    def _inside(self, thing: Any) -> Iterator[bytes]:
        if isinstance(thing, types.CodeType):
            yield thing.co_code
            yield from self.pieces((thing.co_consts, thing.co_names))
        elif isinstance(thing, types.FunctionType):
            yield from self._of_function(thing)
        elif isinstance(thing, types.MethodType):
            yield from self.pieces((thing.__func__, thing.__self__))
        elif isinstance(thing, functools.partial):
            yield from self.pieces((thing.func, thing.args, thing.keywords))
        elif isinstance(thing, (tuple, list)):
            yield type(thing).__name__.encode()
            for item in thing:
                yield from self.pieces(item)
        elif isinstance(thing, dict):
            yield from self.pieces(sorted(thing.items(), key=lambda item: repr(item[0])))
        elif isinstance(thing, (set, frozenset)):
            yield from self.pieces((type(thing).__name__, sorted(thing, key=repr)))
        elif isinstance(thing, type):
            yield from self._of_class(thing)
        elif isinstance(thing, types.BuiltinFunctionType):
            yield f"{thing.__module__}.{thing.__qualname__}".encode()
        elif hasattr(thing, "__wrapped__"):  # by a decorator that is no function
            yield from self.pieces((type(thing), thing.__wrapped__))
        else:
            yield from self.pieces((type(thing), _state(thing)))

    def _of_function(self, function: types.FunctionType) -> Iterator[bytes]:
        if id(function) in self._told:
            yield function.__qualname__.encode()
            return
        self._told.add(id(function))
        cells = [_content(cell) for cell in function.__closure__ or ()]
        for part in (function.__code__, function.__defaults__, function.__kwdefaults__, cells):
            yield from self.pieces(part)
        if not is_installed(function.__module__):
            for name, value in _reached(function):
                yield name.encode()
                yield from self._by_name(value)

    def _by_name(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, types.FunctionType) and is_installed(value.__module__):
            yield f"{value.__module__}.{value.__qualname__}".encode()
        else:
            yield from self.pieces(value)

    def _of_class(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if is_installed(kind.__module__) or id(kind) in self._told:
            return
        self._told.add(id(kind))
        yield from self.pieces(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            member = _function_of(value)
            if member is not None or not name.startswith("__"):
                yield name.encode()
                yield from self.pieces(value if member is None else member)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _reached(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What the code reads by a global name, apart from modules."""
    space = function.__globals__
    for name in sorted(set(_global_names(function.__code__)) & space.keys()):
        if not isinstance(space[name], types.ModuleType):
            yield name, space[name]


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _function_of(member: Any) -> Any:
    """The function in a member of a class, None where it is none."""
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    if isinstance(member, functools.cached_property):
        return member.func
    return member if isinstance(member, types.FunctionType) else None


def _state(thing: Any) -> Any:
    """The fields of an object as a copy takes them over, without what it has cached."""
    try:
        reduced = thing.__reduce_ex__(2)
    except Exception:  # some things cannot be copied
        return ADDRESS.sub("", repr(thing))
    if isinstance(reduced, str):
        return reduced
    _, arguments, *rest = reduced
    found = [list(part) if isinstance(part, Iterator) else part for part in rest]
    if found and isinstance(found[0], dict):
        found[0] = {n: value for n, value in found[0].items() if not _is_cache(thing, n)}
    return (arguments[1:] if arguments[:1] == (type(thing),) else arguments, *found)


def _is_cache(thing: Any, name: str) -> bool:
    member = inspect.getattr_static(type(thing), str(name), None)
    return isinstance(member, functools.cached_property)


@functools.cache
def is_installed(name: str | None) -> bool:
    """Whether a module comes with Python or with a package."""
    module = sys.modules.get(name or "")
    if name == "__main__" or module is None:
        return False
    path = getattr(module, "__file__", None)
    if path is None:
        return True
    where = Path(path).resolve()
    inside = {"site-packages", "dist-packages"} & set(where.parts)
    return bool(inside) or any(folder in where.parents for folder in INSTALLED)
