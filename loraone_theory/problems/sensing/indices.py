"""Gathers and scatters of rows for operators that measure single entries or outputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.validate import shapes_match

Made = TypeVar("Made")


def stacked(draws: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """Index arrays of several instances as one int64 tensor on the device of `like`."""
    return torch.from_numpy(np.stack(draws).astype(np.int64)).to(like.device)


def hold_indices(operator: Any, *names: str) -> None:
    """Fields of an operator that are integer arrays, taken over as int64 tensors."""
    for name in names:
        given = vars(operator)[name]
        if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
            object.__setattr__(operator, name, torch.from_numpy(given.astype(np.int64)))
        elif not isinstance(given, Tensor):
            found = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
            raise TypeError(f"{name} must be int64 indices, a tensor or a numpy array; got {found}")


def check_indices(name: str, given: Tensor, size: int, shape: torch.Size) -> None:
    """Indices 0 <= i < size of the given shape.

    Raises:
        TypeError: not int64.
        ValueError: another shape, none at all, or an index out of range.
    """
    if given.dtype != torch.int64:
        raise TypeError(f"{name} must be int64 indices; got {given.dtype}; convert with .long()")
    shapes_match(
        f"{name} must hold one index per measurement",
        given.shape == shape,
        **{name: given.shape, "measurements": shape},
    )
    if given.numel() == 0:
        raise ValueError(f"{name} must hold at least one index: m >= 1; got none")
    low, high = int(given.min()), int(given.max())
    if low < 0 or high >= size:
        raise ValueError(f"{name} must lie in 0..{size - 1}; got values from {low} to {high}")


def named_again(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """The entries, as row·width + column, that one instance names again; none where each is once.

    >>> named_again(torch.tensor([0, 1, 0]), torch.tensor([2, 0, 2]), 3)
    tensor([2])
    """
    flat = rows * width + columns
    if not bool((flat[..., 1:] > flat[..., :-1]).all()):
        flat = flat.sort(dim=-1).values
    return flat[..., 1:][flat[..., 1:] == flat[..., :-1]]


def check_once(rows: Tensor, columns: Tensor, width: int) -> None:
    """No entry (row, column) of a matrix of that width is named twice in one instance.

    Raises:
        ValueError: one is; with the entry.
    """
    again = named_again(rows, columns, width)
    if len(again):
        row, column = divmod(int(again[0]), width)
        raise ValueError(
            f"rows and columns must name each entry once; got entry ({row}, {column}) more than "
            "once; merge its labels, or pass repeated=True to have its measurements add up"
        )


def known(kind: type[Made], **fields: Any) -> Made:
    """An operator whose indices are known to be in range: they are not read back to see that."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def take_rows(M: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (n, m) of M (n, p, q), as (n, m, q)."""
    n, p, q = M.shape
    if n == 1:
        return M[0].index_select(0, index[0])[None]
    offset = torch.arange(n, device=M.device)[:, None] * p
    return M.reshape(n * p, q).index_select(0, (index + offset).flatten()).view(n, -1, q)


def add_rows(M: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows of M (n, m, q) added up at `index` (n, m), as (n, size, q); repeats accumulate."""
    n, _, q = M.shape
    offset = torch.arange(n, device=M.device)[:, None] * size
    out = M.new_zeros(n * size, q)
    return out.index_add_(0, (index + offset).flatten(), M.reshape(-1, q)).view(n, size, q)


class Scatter(NamedTuple):
    """The sparse matrix with entries y_i at (to_i, source_i), for any y, times a thin matrix.

    Entries are kept in compressed rows, once sorted; those that repeat add up.

    Args:
        order: (m,), which puts the entries in order of their rows; None where they are.
        starts: (rows + 1,), where each row begins.
        source: (m,), their columns in that order.
        shape: of the matrix.
    """

    order: Tensor | None
    starts: Tensor
    source: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, to: Tensor, source: Tensor, shape: tuple[int, int]) -> Scatter:
        """From the places of the entries."""
        starts = to.new_zeros(shape[0] + 1).scatter_add_(0, to + 1, torch.ones_like(to)).cumsum(0)
        # Elsewhere than on the CPU a look costs more than sorting what is in order.
        if to.device.type == "cpu" and bool((to[1:] >= to[:-1]).all()):
            return cls(None, starts, source, shape)
        order = torch.argsort(to, stable=True)
        return cls(order, starts, source[order], shape)

    def __call__(self, y: Tensor, M: Tensor) -> Tensor:
        """Σ_i y_i e_{to_i} (row source_i of M), shape (shape[0], p)."""
        values = y if self.order is None else y.index_select(0, self.order)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            sparse = torch.sparse_csr_tensor(
                self.starts, self.source, values, self.shape, check_invariants=False
            )
            return sparse @ M.contiguous()
