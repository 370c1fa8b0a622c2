"""Rank-one sensing: a_i = x_i z_iᵀ with Gaussian x_i and z_i."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold, hold
from loraone_theory.problems.sensing.bilinear import Bilinear, inner


@dataclass(frozen=True, eq=False, repr=False)
class RankOne(Bilinear):
    """𝒜(M)_i = x_iᵀMz_i.

    Args:
        X: (..., m, d).
        Z: (..., m, k), of the same batch.

    >>> import torch
    >>> from loraone_theory.core.factors import Factors
    >>> X, Z = torch.eye(2), torch.ones(2, 3)
    >>> RankOne(X, Z).forward(Factors(torch.eye(2), torch.tensor([[1.0, 2, 3], [4, 5, 6]])))
    tensor([ 6., 15.])
    """

    Z: Tensor

    name: ClassVar[str] = "rank-one"

    def __post_init__(self) -> None:
        super().__post_init__()
        hold(self, Z=2)
        validate.same_kind(X=self.X, Z=self.Z)
        validate.shapes_match(
            "X and Z must hold one row per measurement",
            self.X.shape[:-1] == self.Z.shape[:-1],
            X=self.X.shape,
            Z=self.Z.shape,
        )

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor, stream: str = ""
    ) -> RankOne:
        """One operator per seed."""
        X = per_seed(lambda rng: normal(rng, measurements, d), seeds, f"{stream}inputs", like)
        Z = per_seed(lambda rng: normal(rng, measurements, k), seeds, f"{stream}outputs", like)
        return cls(X, Z)

    @property
    def k(self) -> int:  # type: ignore[override]
        """Width of Z."""
        return self.Z.shape[-1]

    def pick(self, indices: Tensor) -> RankOne:
        """The measurements `indices` (..., b)."""
        lead = len(self.batch_shape)
        return RankOne(take(self.X, indices, lead), take(self.Z, indices, lead))

    def outputs(self, fold: Fold, M: Tensor) -> Tensor:
        """ZM."""
        return fold.data(self.Z) @ M

    def spread(self, fold: Fold, M: Tensor) -> Tensor:
        """ZᵀM."""
        return inner(fold.data(self.Z), M)
