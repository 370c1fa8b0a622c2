"""Single-response regression: one output of each input, a_i = √k x_i e_{j_i}ᵀ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, normal, per_seed
from loraone_theory.problems.sensing.base import Fold, Operator
from loraone_theory.problems.sensing.indices import add_rows, check_indices, stacked, take_rows


@dataclass(frozen=True, eq=False)
class SingleResponse(Operator):
    """𝒜(M)_i = √k x_iᵀM e_{j_i}; one product with X and one gather.

    Args:
        X: (..., m, d).
        columns: j (..., m), int64, of the same batch; outputs may repeat.
        k: output width.
    """

    X: Tensor
    columns: Tensor
    k: int

    name: ClassVar[str] = "single-response"

    def __post_init__(self) -> None:
        check_indices("columns", self.columns, self.k, self.X.shape[:-1])

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor
    ) -> SingleResponse:
        """One operator per seed, outputs uniform and independent."""
        X = per_seed(lambda rng: normal(rng, measurements, d), seeds, "inputs", like)
        draws = [generator(seed, "outputs").integers(k, size=measurements) for seed in seeds]
        return cls(X, stacked(draws, like), k)

    @property
    def d(self) -> int:  # type: ignore[override]
        """Width of X."""
        return self.X.shape[-1]

    @property
    def measurements(self) -> int:
        """m."""
        return self.X.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of X."""
        return self.X.shape[:-2]

    @property
    def like(self) -> Tensor:
        """X."""
        return self.X

    def forward(self, F: Factors) -> Tensor:
        """√k times the row sums of XA ∘ (Bᵀ gathered at j)."""
        fold = Fold.of(self.batch_shape, F.shape[:-2])
        XA = fold.data(self.X) @ fold.columns(F.A)
        B = take_rows(fold.columns(F.B.mT), self._columns(fold))
        return self.k**0.5 * fold.scalars(XA * B, F.rank)

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """√k Xᵀ(y ∘ (M gathered at j))."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        gathered = take_rows(fold.columns(M), self._columns(fold))
        weighted = fold.weighted(gathered, fold.vectors(self.k**0.5 * y))
        return fold.back(fold.data(self.X).mT @ weighted)

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """√k (y ∘ XM) added up at j."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        XM = fold.data(self.X) @ fold.columns(M)
        weighted = fold.weighted(XM, fold.vectors(self.k**0.5 * y))
        return fold.back(add_rows(weighted, self._columns(fold), self.k))

    def _columns(self, fold: Fold) -> Tensor:
        return fold.data(self.columns, 1)
