"""The one gate for arrays from outside, and what several of them must share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.masked import MaskedTensor

from loraone_theory.core.frames import from_table, is_table
from loraone_theory.core.wording import kind, shown

Array = Tensor | np.ndarray

DTYPES = (torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def tensor(
    name: str,
    given: Any,
    *,
    least_dims: int = 2,
    owned: bool = False,
    integers: bool = False,
    finite: bool = True,
) -> Tensor:
    """A finite, dense float32 or float64 tensor.

    Masked, sparse, meta, quantised, nested, complex, boolean and half-precision arrays, strings
    and lists are refused, each with the way to convert it.

    Args:
        name: of the argument.
        given: a tensor, or a numpy array, which shares its memory with the answer where it can; of
            a pandas table the numbers.
        least_dims: fewest dimensions.
        owned: answer with a copy, so that later changes to `given` are seen nowhere.
        integers: take integers as float64.
        finite: refuse NaN and infinities.
    """
    if is_table(given):
        given = from_table(name, given)
    found = _from_numpy(name, given) if isinstance(given, np.ndarray) else given
    if not isinstance(found, Tensor):
        raise TypeError(f"{name} must be a torch tensor or a numpy array; got {kind(given)}")
    _refuse_odd(name, found)
    if integers and found.dtype in INTEGERS:
        found = found.double()
    if found.dtype not in DTYPES:
        raise TypeError(_dtype_message(name, str(found.dtype).removeprefix("torch.")))
    if found.ndim < least_dims:
        raise ValueError(
            f"{name} must have at least {least_dims} dimensions; got shape {tuple(found.shape)}"
        )
    if 0 in found.shape:
        raise ValueError(f"{name} must not be empty; got shape {tuple(found.shape)}")
    if finite and not all_finite(found):
        raise ValueError(
            f"{name} must be finite; got {int((~torch.isfinite(found)).sum())} NaN or infinite "
            f"entries of {found.numel()}; remove or repair them first"
        )
    return found.detach().clone() if owned else found


def all_finite(*tensors: Tensor) -> bool:
    """Whether no entry of them is NaN or infinite.

    One that is makes the sum so, which is quick to take; where that is because finite entries are
    large, all of them are looked at.

    >>> large, odd = torch.tensor([3e38, 3e38]), torch.tensor([torch.inf, -torch.inf])
    >>> all_finite(large), all_finite(large, odd)
    (True, False)
    """
    sums = [tensor.detach().sum() for tensor in tensors]
    total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
    if bool(torch.isfinite(total)):
        return True
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())


def _from_numpy(name: str, given: np.ndarray) -> Tensor:
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be masked; got a masked array with {np.ma.count_masked(given)} "
            f"entries masked; fill or drop them first, for example {name}.filled(0.0)"
        )
    # Other byte orders have no torch type, and torch warns of memory that it may not write to.
    native = given.dtype.newbyteorder("=")
    try:
        return torch.from_numpy(np.require(given, native, ("C", "W", "E")))
    except (TypeError, ValueError):
        raise TypeError(_dtype_message(name, str(given.dtype))) from None


def _refuse_odd(name: str, given: Tensor) -> None:
    """Tensors whose entries are elsewhere, absent, or not what they stand for."""
    odd = {
        "masked": isinstance(given, MaskedTensor),
        "nested": given.is_nested,
        "sparse": given.layout is not torch.strided,
        "a meta tensor without entries": given.is_meta,
        "quantised": given.is_quantized,
    }
    for what, is_so in odd.items():
        if is_so:
            raise TypeError(
                f"{name} must be a dense tensor of numbers; got one that is {what}; "
                "convert it first, for example by to_dense() or dequantize()"
            )


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


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """`torch.broadcast_shapes`, which takes longer than a product of small matrices does.

    Shapes that are equal, or (), need nothing of it.

    >>> broadcast((2, 3), (), (2, 3)), broadcast((2, 1), (3,))
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    found: tuple[int, ...] = ()
    for shape in map(tuple, shapes):
        if shape and shape != found:
            if found:
                return torch.broadcast_shapes(*shapes)
            found = shape
    return torch.Size(found)


def broadcastable(name: str, shape: Sequence[int], other: str, other_shape: Sequence[int]) -> None:
    """The batch dimensions of two arguments broadcast."""
    try:
        broadcast(tuple(shape), tuple(other_shape))
    except RuntimeError:
        raise ValueError(
            f"the batch dimensions of {name} and {other} must broadcast; "
            f"got {tuple(shape)} and {tuple(other_shape)}"
        ) from None


def expands_to(name: str, shape: Sequence[int], batch: Sequence[int]) -> None:
    """Batch dimensions `shape` broadcast to exactly `batch`."""
    try:
        fits = broadcast(tuple(shape), tuple(batch)) == torch.Size(batch)
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
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"device must be cpu or cuda[:index]; got {shown(given)}") from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda[:index]; got {shown(given)}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {given} was asked for but this machine has no CUDA; use cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {given} was asked for but there are {count}; use a lower index")
    return found


def dtype(given: Any) -> torch.dtype:
    """float32 or float64, by name or as a torch dtype."""
    named = {str(value).removeprefix("torch."): value for value in DTYPES}
    value = named.get(given) if isinstance(given, str) else given
    if not isinstance(value, torch.dtype) or value not in DTYPES:
        raise TypeError(f"dtype must be float32 or float64; got {shown(given)}")
    return value
