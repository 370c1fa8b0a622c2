"""Rank-one sensing: a_i = x_i z_iᵀ with Gaussian x_i and z_i."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems.sensing.base import Fold, Operator


@dataclass(frozen=True, eq=False)
class RankOne(Operator):
    """𝒜(M)_i = x_iᵀMz_i: the row sums of XA ∘ ZBᵀ; a step costs 4m(d + k)r, d×k is never formed.

    Args:
        X: (..., m, d).
        Z: (..., m, k), of the same batch.

    >>> X, Z = torch.eye(2), torch.ones(2, 3)
    >>> RankOne(X, Z).forward(Factors(torch.eye(2), torch.tensor([[1.0, 2, 3], [4, 5, 6]])))
    tensor([ 6., 15.])
    """

    X: Tensor
    Z: Tensor

    name: ClassVar[str] = "rank-one"

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor
    ) -> RankOne:
        """One operator per seed."""
        X = per_seed(lambda rng: normal(rng, measurements, d), seeds, "inputs", like)
        Z = per_seed(lambda rng: normal(rng, measurements, k), seeds, "outputs", like)
        return cls(X, Z)

    @property
    def d(self) -> int:  # type: ignore[override]
        """Width of X."""
        return self.X.shape[-1]

    @property
    def k(self) -> int:  # type: ignore[override]
        """Width of Z."""
        return self.Z.shape[-1]

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
        """Row sums of XA ∘ ZBᵀ."""
        fold = Fold.of(self.batch_shape, F.shape[:-2])
        XA, ZB = self._images(fold, F)
        return fold.scalars(XA * ZB, F.rank)

    def miss_and_pull(self, F: Factors, y: Tensor) -> tuple[Tensor, Factors]:
        """𝒜(AB) − y and its pull, from one XA and one ZBᵀ."""
        fold = Fold.of(self.batch_shape, F.shape[:-2], y.shape[:-1])
        XA, ZB = self._images(fold, F)
        miss = fold.scalars(XA * ZB, F.rank) - y
        weights = fold.vectors(miss)
        return miss, self._gathered(fold, fold.weighted(ZB, weights), fold.weighted(XA, weights))

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """(Xᵀ(y ∘ ZBᵀ), (y ∘ XA)ᵀZ)."""
        fold = Fold.of(self.batch_shape, F.shape[:-2], y.shape[:-1])
        (XA, ZB), weights = self._images(fold, F), fold.vectors(y)
        return self._gathered(fold, fold.weighted(ZB, weights), fold.weighted(XA, weights))

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """Xᵀ(y ∘ ZM)."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        ZM = fold.weighted(fold.data(self.Z) @ fold.columns(M), fold.vectors(y))
        return fold.back(fold.data(self.X).mT @ ZM)

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """Zᵀ(y ∘ XM)."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        XM = fold.weighted(fold.data(self.X) @ fold.columns(M), fold.vectors(y))
        return fold.back(fold.data(self.Z).mT @ XM)

    def _images(self, fold: Fold, F: Factors) -> tuple[Tensor, Tensor]:
        return fold.data(self.X) @ fold.columns(F.A), fold.data(self.Z) @ fold.columns(F.B.mT)

    def _gathered(self, fold: Fold, right: Tensor, left: Tensor) -> Factors:
        X, Z = fold.data(self.X), fold.data(self.Z)
        return Factors(fold.back(X.mT @ right), fold.back(Z.mT @ left).mT)
