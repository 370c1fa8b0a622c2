"""Matrix completion: scaled single entries, a_i = √(dk) e_p e_qᵀ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold, Operator
from loraone_theory.problems.sensing.indices import (
    Scatter,
    check_indices,
    check_once,
    hold_indices,
    known,
    named_again,
    stacked,
    take_rows,
)

# Entries are predicted in pieces whose gathered rows take about this many bytes, to stay in cache.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Operator):
    """𝒜(M)_i = √(dk) M at (rows_i, columns_i); a step costs O(mr), d×k is never formed.

    Without the factor √(dk) every rate and the scale of Spectral-init would depend on the share of
    entries that are seen.

    Args:
        rows: (..., m), int64.
        columns: (..., m), int64.
        d: rows of the matrices.
        k: their columns.
        like: a tensor that carries dtype and device.
        repeated: whether an entry may be named more than once; its contributions then add up.

    Raises:
        TypeError: indices that are not int64.
        ValueError: indices out of range; an entry named twice without `repeated`.

    >>> entries = torch.tensor([0, 1])
    >>> seen = Completion(entries, entries, 2, 2, torch.ones(1))
    >>> seen.forward(Factors(torch.eye(2), torch.tensor([[1.0, 2], [3, 4]])))
    tensor([2., 8.])
    """

    rows: Tensor
    columns: Tensor
    d: int
    k: int
    like: Tensor
    repeated: bool = False

    name: ClassVar[str] = "completion"
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("d", "k"):
            validate.integer(name, vars(self)[name], least=1)
        validate.instance(
            "like", self.like, Tensor, "pass torch.ones(1) of the dtype that is meant"
        )
        hold_indices(self, "rows", "columns")
        check_indices("rows", self.rows, self.d, self.columns.shape)
        check_indices("columns", self.columns, self.k, self.rows.shape)
        if not validate.flag("repeated", self.repeated):
            check_once(self.rows, self.columns, self.k)

    @classmethod
    def sample(
        cls,
        d: int,
        k: int,
        measurements: int,
        seeds: Sequence[int],
        like: Tensor,
        replace: bool = True,
        stream: str = "",
    ) -> Completion:
        """One operator per seed: uniform entries, with or without replacement, sorted.

        Raises:
            ValueError: more entries than there are, without replacement.
        """
        validate.shapes_match(
            "without replacement there are at most d·k entries: measurements <= d * k",
            replace or measurements <= d * k,
            measurements=(measurements,),
            shape=(d, k),
        )

        def draw(rng: np.random.Generator) -> np.ndarray:
            if replace:
                return np.sort(rng.integers(d * k, size=measurements))
            return np.sort(rng.choice(d * k, measurements, replace=False))

        flat = stacked([draw(generator(seed, f"{stream}entries")) for seed in seeds], like)
        rows, columns = flat // k, flat % k
        return known(cls, rows=rows, columns=columns, d=d, k=k, like=like, repeated=replace)

    def pick(self, indices: Tensor) -> Completion:
        """The entries `indices` (..., b), as often as they are named."""
        lead = len(self.batch_shape)
        rows, columns = (take(each, indices, lead) for each in (self.rows, self.columns))
        kept = {"d": self.d, "k": self.k, "like": self.like, "repeated": True}
        return known(Completion, rows=rows, columns=columns, **kept)

    @property
    def measurements(self) -> int:
        """m."""
        return self.rows.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `rows`."""
        return self.rows.shape[:-1]

    @property
    def scale(self) -> float:
        """√(dk)."""
        return (self.d * self.k) ** 0.5

    @property
    def distinct(self) -> bool:
        """Whether every measured entry is another one, in each instance."""
        return not len(named_again(self.rows, self.columns, self.k))

    @property
    def counts(self) -> Tensor:
        """How often each entry is seen, (..., d, k), in full."""
        flat = self.rows * self.k + self.columns
        seen = self.like.new_zeros(*self.batch_shape, self.d * self.k)
        ones = torch.ones_like(flat, dtype=seen.dtype)
        return seen.scatter_add_(-1, flat, ones).unflatten(-1, (self.d, self.k))

    def forward(self, F: Factors) -> Tensor:
        """√(dk) Σ_r A_pr B_rq over the seen entries (p, q)."""
        fold = Fold.of(self.batch_shape, F.shape[:-2])
        A, B = fold.columns(F.A), fold.columns(F.B.mT)
        out = A.new_empty(fold.instances, self.measurements, fold.runs)
        rows, columns = fold.data(self.rows, 1), fold.data(self.columns, 1)
        step = max(1, PIECE_BYTES // (A.element_size() * A.shape[-1] * fold.instances))
        for start in range(0, self.measurements, step):
            part = slice(start, min(start + step, self.measurements))
            left, right = take_rows(A, rows[:, part]), take_rows(B, columns[:, part])
            shape = (*left.shape[:2], fold.runs, F.rank)
            out[:, part] = torch.linalg.vecdot(left.view(shape), right.view(shape))
        return fold.back(out.mul_(self.scale))[..., 0]

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """√(dk) Σ_i y_i e_p (row q of M)."""
        fold = Fold.of(self.batch_shape, y.shape[:-1], M.shape[:-2])
        return self._scattered(self._by_row, fold, y, M)

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """√(dk) Σ_i y_i e_q (row p of M)."""
        fold = Fold.of(self.batch_shape, y.shape[:-1], M.shape[:-2])
        return self._scattered(self._by_column, fold, y, M)

    def _scattered(self, scatters: Sequence[Scatter], fold: Fold, y: Tensor, M: Tensor) -> Tensor:
        shape = (fold.runs, fold.instances)
        y = y.expand(*fold.batch, y.shape[-1]).reshape(*shape, -1)
        M = M.expand(*fold.batch, *M.shape[-2:]).reshape(*shape, *M.shape[-2:])
        found = [
            scatters[i if len(scatters) > 1 else 0](y[run, i], M[run, i])
            for run in range(fold.runs)
            for i in range(fold.instances)
        ]
        return torch.stack(found).mul_(self.scale).view(*fold.batch, *found[0].shape)

    @cached_property
    def _by_row(self) -> list[Scatter]:
        return self._scatters(self.rows, self.columns, (self.d, self.k))

    @cached_property
    def _by_column(self) -> list[Scatter]:
        return self._scatters(self.columns, self.rows, (self.k, self.d))

    def _scatters(self, to: Tensor, source: Tensor, shape: tuple[int, int]) -> list[Scatter]:
        to, source = (t.reshape(-1, self.measurements) for t in (to, source))
        return [Scatter.of(a, b, shape) for a, b in zip(to, source, strict=True)]
