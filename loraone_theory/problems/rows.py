"""Training data as arrays whose rows are samples: owning, picking, holding out, drawing afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.eigen import is_recording
from loraone_theory.core.randomness import generator

Arrays = tuple[Tensor, ...]
# (generator, size) -> `size` fresh rows, one array or several.
Draw = Callable[[np.random.Generator, int], Any]
# (step, size, seeds) -> a problem of fresh rows.
Fresh = Callable[[int, int, Sequence[int]], Any]


def own(name: str, given: Any, lead: int) -> Arrays:
    """Copies of one array or of a sequence of arrays that have as many rows each.

    Args:
        name: of the argument, for messages.
        given: None, an array, or a sequence of arrays (*instances, N, ...).
        lead: how many leading dimensions count instances.

    Raises:
        TypeError, ValueError: not an array, non-finite entries, or different numbers of rows.
    """
    if given is None:
        return ()
    several = list(given) if isinstance(given, (tuple, list)) else [given]
    arrays = tuple(_own(f"{name}[{i}]", array, lead + 1) for i, array in enumerate(several))
    if arrays:
        validate.shapes_match(
            f"all arrays of {name} must share their first {lead + 1} dimensions",
            all(array.shape[: lead + 1] == arrays[0].shape[: lead + 1] for array in arrays),
            **{f"{name}[{i}]": array.shape for i, array in enumerate(arrays)},
        )
    return arrays


def _own(name: str, given: Any, least_dims: int) -> Tensor:
    whole = isinstance(given, np.ndarray) and given.dtype.kind in "iub"
    if isinstance(given, Tensor):
        whole = not (given.is_floating_point() or given.is_complex())
    if not whole:
        return validate.tensor(name, given, least_dims=least_dims, owned=True)
    array = torch.as_tensor(given).detach().clone()
    if array.ndim < least_dims or 0 in array.shape:
        raise ValueError(
            f"{name} must have at least {least_dims} dimensions and no empty one; "
            f"got shape {tuple(array.shape)}"
        )
    return array


def take(array: Tensor, indices: Tensor, lead: int) -> Tensor:
    """The rows `indices` (..., b) of an array (*instances, N, ...); batch dimensions broadcast.

    >>> take(torch.arange(6.0).reshape(3, 2), torch.tensor([[2, 0]]), 0)
    tensor([[[4., 5.],
             [0., 1.]]])
    """
    if indices.dtype != torch.int64 or indices.ndim < 1:
        raise TypeError(
            f"indices must be int64 of shape (..., b); got {indices.dtype} of shape "
            f"{tuple(indices.shape)}"
        )
    N = array.shape[lead]
    unread = indices.is_cuda or is_recording()
    if not unread and not bool(((indices >= 0) & (indices < N)).all()):
        worst = int(indices[(indices < 0) | (indices >= N)][0])
        raise ValueError(f"indices must be from 0 to N - 1; got {worst} with N={N}")
    if lead == 0:
        return array[indices]
    trailing = array.ndim - lead - 1
    placed = indices.reshape(*indices.shape, *[1] * trailing)
    missing = lead + 1 - indices.ndim
    placed = placed.reshape(*[1] * missing, *placed.shape)
    over = indices.ndim - lead - 1
    wide = array.reshape(*[1] * over, *array.shape)
    return torch.take_along_dim(wide, placed, dim=max(lead, indices.ndim - 1))


def split_off(
    arrays: Arrays, held_out: Arrays, lead: int, split: Any, seed: int
) -> tuple[Arrays, Arrays]:
    """(training rows, held-out rows): those given, or the fraction `split` drawn with `seed`.

    Raises:
        ValueError: both are given, no data to split, or a side without rows.
    """
    fraction = validate.below_one("split", split)
    seed = validate.integer("split_seed", seed, least=0)
    if fraction == 0:
        return arrays, held_out
    if held_out:
        raise ValueError("split and held_out exclude each other; give one of them")
    if not arrays:
        raise ValueError(f"split={split} holds out rows of the data, and there is none; give data")
    N = arrays[0].shape[lead]
    count = round(fraction * N)
    if not 0 < count < N:
        raise ValueError(
            f"split must leave rows on both sides; got split={split} of {N} rows, which holds out "
            f"{count}; change split or give held_out"
        )
    order = generator(seed, "split").permutation(N)
    test, train = (np.sort(part) for part in (order[:count], order[count:]))

    def pick(which: np.ndarray) -> Arrays:
        index = torch.from_numpy(which)
        return tuple(array.index_select(lead, index.to(array.device)) for array in arrays)

    return pick(train), pick(test)


def fresh(draw: Draw, step: int, size: int, seeds: Sequence[int]) -> Arrays:
    """`size` rows per seed, stacked (seeds, size, ...): a pure function of (seed, step)."""
    drawn = [_listed(draw(generator(seed, f"fresh/{step}"), size)) for seed in seeds]
    return tuple(torch.stack(parts) for parts in zip(*drawn, strict=True))


def _listed(drawn: Any) -> list[Tensor]:
    several = drawn if isinstance(drawn, (tuple, list)) else [drawn]
    return [torch.as_tensor(array) for array in several]
