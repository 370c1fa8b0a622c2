"""The one place where argument errors are worded: the rule, what was given, the remedy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray

DTYPES = (torch.float32, torch.float64)


def choice(name: str, given: str, options: Iterable[str]) -> str:
    """`given` if it is one of `options`, else ValueError with the nearest of them."""
    known = list(options)
    if given in known:
        return given
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(known)}; got {given!r}{hint}")


def integer(name: str, given: Any, *, least: int, remedy: str = "") -> int:
    """`given` as an int >= `least`, else TypeError or ValueError."""
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {given!r} of type {type(given).__name__}")
    if given < least:
        tail = f"; {remedy}" if remedy else ""
        raise ValueError(f"{name} must be >= {least}; got {name}={given}{tail}")
    return int(given)


def rank(given: Any, *, d: int, k: int, name: str = "rank") -> int:
    """A rank with 1 <= rank <= min(d, k)."""
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
    try:
        value = float(given)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {given!r}") from None
    sign = "> 0" if positive else ">= 0"
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        tail = f"; {remedy}" if remedy else ""
        raise ValueError(f"{name} must be finite and {sign}; got {name}={given}{tail}")
    return value


def below_one(name: str, given: Any) -> float:
    """A number in [0, 1)."""
    value = number(name, given)
    if value >= 1:
        raise ValueError(f"{name} must satisfy 0 <= {name} < 1; got {name}={value}")
    return value


def standard_deviation(name: str, given: Any) -> Any:
    """One positive number, or a tensor of them that a batch of runs is made with."""
    if isinstance(given, (list, tuple)):
        raise TypeError(
            f"{name} of a method is one number; got {given!r}; "
            f"pass the sequence to simulate({name}=...) to run all of them in one batch"
        )
    if not isinstance(given, Tensor):
        number(name, given, positive=True)
    return given


def numbers(name: str, given: Any, *, positive: bool = False, remedy: str = "") -> Any:
    """A number, or a non-empty flat sequence of numbers as a list of floats."""
    if isinstance(given, (Tensor, np.ndarray)):
        given = given.tolist()
    if isinstance(given, (list, tuple, range)):
        if not given:
            raise ValueError(f"{name} must hold at least one value; got an empty sequence")
        return [number(name, value, positive=positive, remedy=remedy) for value in given]
    return number(name, given, positive=positive, remedy=remedy)


def seeds(given: Any) -> tuple[int, ...]:
    """One or several seeds >= 0 as a tuple; an int stands for one seed."""
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        given = (given,)
    values = tuple(integer("seeds", seed, least=0) for seed in given)
    if not values:
        raise ValueError("seeds must hold at least one seed; got none")
    return values


def tensor(name: str, given: Any, *, least_dims: int = 2) -> Tensor:
    """A finite float32 or float64 tensor; numpy arrays are taken over without a copy."""
    if isinstance(given, np.ndarray):
        kind = given.dtype
        if kind not in (np.float32, np.float64):
            raise TypeError(_dtype_message(name, str(kind)))
        given = torch.from_numpy(np.ascontiguousarray(given))
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor or a numpy array; got {type(given).__name__}"
        )
    if given.dtype not in DTYPES:
        raise TypeError(_dtype_message(name, str(given.dtype).removeprefix("torch.")))
    if given.ndim < least_dims:
        raise ValueError(
            f"{name} must have at least {least_dims} dimensions; got shape {tuple(given.shape)}"
        )
    if 0 in given.shape:
        raise ValueError(f"{name} must not be empty; got shape {tuple(given.shape)}")
    if not bool(torch.isfinite(given).all()):
        raise ValueError(
            f"{name} must be finite; got {int((~torch.isfinite(given)).sum())} NaN or infinite "
            f"entries of {given.numel()}; remove or repair them first"
        )
    return given


def _dtype_message(name: str, given: str) -> str:
    return (
        f"{name} must be float32 or float64; got {given}; "
        f"convert it first, for example {name}.astype('float64') or {name}.to(torch.float64)"
    )


def same_kind(**tensors: Tensor) -> None:
    """All tensors share one dtype and one device, else ValueError that names the odd pair."""
    items = list(tensors.items())
    (first_name, first), rest = items[0], items[1:]
    for name, other in rest:
        if other.dtype != first.dtype:
            raise TypeError(
                f"{first_name} and {name} must have the same dtype; "
                f"got {first.dtype} and {other.dtype}; convert one of them"
            )
        if other.device != first.device:
            raise ValueError(
                f"{first_name} and {name} must be on the same device; "
                f"got {first.device} and {other.device}; move one of them"
            )


def shapes_match(rule: str, ok: bool, **shapes: Sequence[int]) -> None:
    """Raise ValueError with `rule` and every shape unless `ok`."""
    if not ok:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{rule}; got {listed}")


def broadcastable(name: str, shape: Sequence[int], other: str, other_shape: Sequence[int]) -> None:
    """The batch dimensions of two arguments broadcast."""
    try:
        torch.broadcast_shapes(tuple(shape), tuple(other_shape))
    except RuntimeError:
        raise ValueError(
            f"the batch dimensions of {name} and {other} must broadcast; "
            f"got {tuple(shape)} and {tuple(other_shape)}"
        ) from None


def expands_to(name: str, shape: Sequence[int], batch: Sequence[int]) -> None:
    """Batch dimensions `shape` broadcast to exactly `batch`."""
    try:
        fits = torch.broadcast_shapes(tuple(shape), tuple(batch)) == torch.Size(batch)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"the batch dimensions of the {name} must broadcast to those of the runs; "
            f"got {tuple(shape)} for runs {tuple(batch)}"
        )


def device(given: Any) -> torch.device:
    """A torch device that this machine has."""
    try:
        found = torch.device(given)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu or cuda[:index]; got {given!r}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {given} was asked for but this machine has no CUDA; use cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {given} was asked for but there are {count}; use a lower index")
    return found


def dtype(given: Any) -> torch.dtype:
    """float32 or float64, by name or as a torch dtype."""
    named = {"float32": torch.float32, "float64": torch.float64}
    value = named.get(given, given) if isinstance(given, str) else given
    if value not in DTYPES:
        raise TypeError(f"dtype must be float32 or float64; got {given!r}")
    return value
