"""The state of a rule as torch's optimisers keep it: apart, parameter by parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def leaves(state: Any) -> Iterator[Any]:
    """The tensors and numbers of a rule's state, which is made of tuples."""
    if isinstance(state, tuple):
        for item in state:
            yield from leaves(item)
    elif state is not None:
        yield state


def filled(template: Any, found: Iterator[Any]) -> Any:
    """The state of the form of `template` with these leaves."""
    if isinstance(template, tuple):
        items = [filled(item, found) for item in template]
        return type(template)(*items) if hasattr(template, "_fields") else tuple(items)
    return template if template is None else next(found)


def together(held: Sequence[Sequence[Any]]) -> list[Any]:
    """The same leaf of several units, stacked; numbers are equal in all of them."""
    columns = zip(*held, strict=True)
    return [_stack(leaf) if isinstance(leaf[0], Tensor) else leaf[0] for leaf in columns]


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """The tensor that they are the slices of, where they are, in order; else a new one."""
    first = parts[0]
    base = first._base
    if base is None or base.shape != (len(parts), *first.shape):
        return torch.stack([part.to(first.device) for part in parts])
    step = base.stride(0)
    start = base.storage_offset()
    for i, part in enumerate(parts):
        if part._base is not base or part.storage_offset() != start + i * step:
            return torch.stack([part.to(first.device) for part in parts])
    return base


def fits(held: Sequence[Any], form: Any) -> bool:
    """True where these are the leaves of a state of the form: numbers and tensors of its shapes."""
    fresh = list(leaves(form))
    return len(held) == len(fresh) and all(
        (x.shape if isinstance(x, Tensor) else None) == (y.shape if isinstance(y, Tensor) else None)
        for x, y in zip(held, fresh, strict=True)
    )


def brought(held: Sequence[Any], form: Any, device: torch.device) -> list[Any]:
    """The leaves in the dtypes of the form, on a device; themselves where they are so already."""
    return [
        x.to(device, like.dtype) if isinstance(x, Tensor) else x
        for x, like in zip(held, leaves(form), strict=True)
    ]


def is_part(held: Any, leaf: Any) -> bool:
    """True where `leaf` is the tensor that `held` is a slice of."""
    return isinstance(held, Tensor) and held._base is leaf


def own(leaf: Tensor, device: torch.device) -> Tensor:
    """On a device; a copy where it may be part of another optimiser's state, which is in use."""
    return leaf.to(device, copy=leaf._is_view())


def owners(shapes: Sequence[tuple[int, ...]], parts: Sequence[Any]) -> list[int]:
    """For each leaf, the parameter that it is kept with: one of its shape, in turn; else the first.

    >>> import torch
    >>> owners([(3, 2), (2, 5)], [1, torch.zeros(3, 2), torch.zeros(2, 5), torch.zeros(())])
    [0, 0, 1, 0]
    """
    seen: dict[tuple[int, ...], int] = {}
    found = []
    for part in parts:
        shape = tuple(part.shape) if isinstance(part, Tensor) else None
        fits = [i for i, of in enumerate(shapes) if tuple(of) == shape]
        if not fits or shape is None:
            found.append(0)
            continue
        found.append(fits[seen.get(shape, 0) % len(fits)])
        seen[shape] = seen.get(shape, 0) + 1
    return found
