"""Measurements of single rows of XA, each against one direction of the outputs: a_i = x_i z_iᵀ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing.base import Fold, Operator, hold


def inner(X: Tensor, M: Tensor) -> Tensor:
    """XᵀM of a wide X (n, m, d) and a thin M (n, m, q), as (MᵀX)ᵀ: X is read along its rows."""
    return (M.mT @ X).mT


@dataclass(frozen=True, eq=False, repr=False)
class OfInputs(Operator):
    """What operators made of inputs X (..., N, d) share.

    Args:
        X: (..., N, d).
    """

    X: Tensor

    def __post_init__(self) -> None:
        hold(self, X=2)

    @property
    def d(self) -> int:  # type: ignore[override]
        """Width of X."""
        return self.X.shape[-1]

    @property
    def measurements(self) -> int:
        """m = N."""
        return self.X.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of X."""
        return self.X.shape[:-2]

    @property
    def like(self) -> Tensor:
        """X."""
        return self.X


class Bilinear(OfInputs):
    """𝒜(M)_i = x_iᵀMz_i: the row sums of XA ∘ ZBᵀ; a step costs 4m(d + k)r, d×k is never formed.

    How Z is held, and so its two products, are an operator's own.
    """

    def outputs(self, fold: Fold, M: Tensor) -> Tensor:
        """ZM (n, m, q) of M (n, k, q)."""
        raise NotImplementedError

    def spread(self, fold: Fold, M: Tensor) -> Tensor:
        """ZᵀM (n, k, q) of M (n, m, q)."""
        raise NotImplementedError

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
        return miss, self._gathered(fold, XA, ZB, fold.vectors(miss))

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """(Xᵀ(y ∘ ZBᵀ), (y ∘ XA)ᵀZ)."""
        fold = Fold.of(self.batch_shape, F.shape[:-2], y.shape[:-1])
        return self._gathered(fold, *self._images(fold, F), fold.vectors(y))

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """Xᵀ(y ∘ ZM)."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        ZM = fold.weighted(self.outputs(fold, fold.columns(M)), fold.vectors(y))
        return fold.back(inner(fold.data(self.X), ZM))

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """Zᵀ(y ∘ XM)."""
        fold = Fold.of(self.batch_shape, M.shape[:-2], y.shape[:-1])
        XM = fold.weighted(fold.data(self.X) @ fold.columns(M), fold.vectors(y))
        return fold.back(self.spread(fold, XM))

    def _images(self, fold: Fold, F: Factors) -> tuple[Tensor, Tensor]:
        left = fold.data(self.X) @ fold.columns(F.A)
        return left, self.outputs(fold, fold.columns(F.B.mT))

    def _gathered(self, fold: Fold, XA: Tensor, ZB: Tensor, weights: Tensor) -> Factors:
        right = inner(fold.data(self.X), fold.weighted(ZB, weights))
        left = self.spread(fold, fold.weighted(XA, weights))
        return Factors(fold.back(right), fold.back(left).mT)
