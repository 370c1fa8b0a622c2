"""Symmetric Gaussian sensing: a_i = (g + gᵀ)/2, the identity in the mean on symmetric matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import per_seed
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold, Operator, hold


@dataclass(frozen=True, eq=False, repr=False)
class Symmetric(Operator):
    """𝒜(M)_i = ⟨a_i, M⟩ for symmetric a_i, which see the symmetric part of M alone.

    Hence an antisymmetric residual is invisible: the measured matrices are meant to be symmetric,
    as with the parametrisation UUᵀ.

    Args:
        packed: a (..., m, d(d+1)/2), the entries i <= j of a_i row by row.
        d: width.
    """

    packed: Tensor
    d: int

    name: ClassVar[str] = "symmetric"
    forms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        hold(self, packed=2)
        validate.integer("d", self.d, least=1)
        validate.shapes_match(
            "packed must hold d(d + 1)/2 entries per measurement",
            self.packed.shape[-1] == self.d * (self.d + 1) // 2,
            packed=self.packed.shape,
            d=(self.d,),
        )

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor, stream: str = ""
    ) -> Symmetric:
        """One operator per seed: entries N(0, 1) on the diagonal, N(0, ½) off it.

        Raises:
            ValueError: d and k differ.
        """
        if d != k:
            raise ValueError(
                f"the symmetric ensemble measures square matrices: d must equal k; got d={d}, k={k}"
            )
        rows, columns = np.triu_indices(d)
        size = np.where(rows == columns, 1.0, 0.5**0.5)
        a = per_seed(
            lambda rng: rng.standard_normal((measurements, len(size))) * size,
            seeds,
            f"{stream}measurements",
            like,
        )
        return cls(a, d)

    def pick(self, indices: Tensor) -> Symmetric:
        """The measurements `indices` (..., b)."""
        return Symmetric(take(self.packed, indices, len(self.batch_shape)), self.d)

    @property
    def k(self) -> int:  # type: ignore[override]
        """d."""
        return self.d

    @property
    def measurements(self) -> int:
        """m."""
        return self.packed.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `packed`."""
        return self.packed.shape[:-2]

    @property
    def like(self) -> Tensor:
        """The packed entries."""
        return self.packed

    def forward(self, F: Factors) -> Tensor:
        """⟨a_i, AB⟩ = Σ_{p<=q} a_pq (M_pq + M_qp) with the diagonal once."""
        fold = Fold.of(self.batch_shape, F.shape[:-2])
        M = F.dense()
        rows, columns = self._indices
        both = M[..., rows, columns] + M[..., columns, rows]
        both = torch.where(rows == columns, both / 2, both)
        return fold.back(fold.data(self.packed) @ fold.vectors(both))[..., 0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Σ_i y_i a_i, symmetric."""
        fold = Fold.of(self.batch_shape, y.shape[:-1])
        upper = fold.back(fold.data(self.packed).mT @ fold.vectors(y))[..., 0]
        rows, columns = self._indices
        out = upper.new_empty(*upper.shape[:-1], self.d, self.d)
        out[..., rows, columns] = upper
        out[..., columns, rows] = upper
        return out

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)M."""
        return self.adjoint(y) @ M

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)ᵀM."""
        return self.adjoint(y) @ M

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """Both products of one 𝒜*(y)."""
        J = self.adjoint(y)
        return Factors(J @ F.B.mT, F.A.mT @ J)

    @property
    def _indices(self) -> tuple[Tensor, Tensor]:
        rows, columns = torch.triu_indices(self.d, self.d, device=self.packed.device)
        return rows, columns
