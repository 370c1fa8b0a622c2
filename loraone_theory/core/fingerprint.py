"""What stands for a user's own function or array in a record: a short hash of what it does."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

LENGTH = 16  # hexadecimal digits


def fingerprint(thing: Any) -> str:
    """A hash of a function's code, constants and captured values, or of an array's entries.

    Equal for equal text and equal captured values, also after a restart; another Python version
    compiles to other code. What a function reaches by a global name is not looked into.

    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    digest = hashlib.sha256()
    for piece in _pieces(thing, ()):
        digest.update(piece)
        digest.update(b"\0")
    return digest.hexdigest()[:LENGTH]


def _pieces(thing: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    if id(thing) in above:  # a function that captures itself
        return
    above = (*above, id(thing))
    if isinstance(thing, Tensor):
        yield from _pieces(thing.detach().cpu().numpy(), above)
    elif isinstance(thing, np.ndarray):
        yield f"{thing.dtype} {thing.shape}".encode()
        yield thing.tobytes()
    elif isinstance(thing, types.CodeType):
        yield thing.co_code
        yield from _pieces((thing.co_consts, thing.co_names), above)
    elif isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        for part in (thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells):
            yield from _pieces(part, above)
    elif isinstance(thing, types.MethodType):
        yield from _pieces((thing.__func__, thing.__self__), above)
    elif isinstance(thing, functools.partial):
        yield from _pieces((thing.func, thing.args, thing.keywords), above)
    elif isinstance(thing, (tuple, list)):
        yield type(thing).__name__.encode()
        for item in thing:
            yield from _pieces(item, above)
    elif isinstance(thing, dict):
        yield from _pieces(sorted(thing.items(), key=repr), above)
    elif isinstance(thing, (type, types.BuiltinFunctionType)):
        yield f"{thing.__module__}.{thing.__qualname__}".encode()
    elif type(thing).__repr__ is object.__repr__:  # its text would hold an address
        yield from _pieces((type(thing), vars(thing) if hasattr(thing, "__dict__") else ()), above)
    else:
        yield repr(thing).encode()
