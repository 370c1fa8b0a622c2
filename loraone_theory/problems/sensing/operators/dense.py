"""Dense Gaussian sensing: a_i with i.i.d. N(0, 1) entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold, Operator, hold


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Operator):
    """𝒜(M)_i = ⟨a_i, M⟩ for matrices held one by one; a step costs 4mdk.

    Args:
        matrices: a (..., m, d, k).

    >>> a = torch.arange(12.0).reshape(3, 2, 2)
    >>> Dense(a).forward(Factors(torch.eye(2), torch.eye(2)))
    tensor([ 3., 11., 19.])
    """

    matrices: Tensor

    name: ClassVar[str] = "dense"
    forms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        hold(self, matrices=3)

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor, stream: str = ""
    ) -> Dense:
        """One operator per seed."""
        name = f"{stream}measurements"
        return cls(per_seed(lambda rng: normal(rng, measurements, d, k), seeds, name, like))

    def pick(self, indices: Tensor) -> Dense:
        """The measurements `indices` (..., b)."""
        return Dense(take(self.matrices, indices, len(self.batch_shape)))

    @property
    def d(self) -> int:  # type: ignore[override]
        """Rows of a_i."""
        return self.matrices.shape[-2]

    @property
    def k(self) -> int:  # type: ignore[override]
        """Columns of a_i."""
        return self.matrices.shape[-1]

    @property
    def measurements(self) -> int:
        """m."""
        return self.matrices.shape[-3]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `matrices`."""
        return self.matrices.shape[:-3]

    @property
    def like(self) -> Tensor:
        """The matrices."""
        return self.matrices

    @cached_property
    def gram(self) -> Tensor:
        """K = 𝒜*𝒜/m, (..., dk, dk)."""
        a = self.matrices.flatten(-2)
        return a.mT @ a / self.measurements

    def forward(self, F: Factors) -> Tensor:
        """⟨a_i, AB⟩."""
        fold = Fold.of(self.batch_shape, F.shape[:-2])
        M = fold.vectors(F.dense().flatten(-2))
        return fold.back(fold.data(self.matrices.flatten(-2)) @ M)[..., 0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Σ_i y_i a_i."""
        fold = Fold.of(self.batch_shape, y.shape[:-1])
        summed = fold.data(self.matrices.flatten(-2)).mT @ fold.vectors(y)
        return fold.back(summed)[..., 0].unflatten(-1, (self.d, self.k))

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)M."""
        return self.adjoint(y) @ M

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)ᵀM."""
        return self.adjoint(y).mT @ M

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """Both products of one 𝒜*(y)."""
        J = self.adjoint(y)
        return Factors(J @ F.B.mT, F.A.mT @ J)
