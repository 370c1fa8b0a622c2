"""Single-response regression: one output of each input, a_i = √k x_i e_{j_i}ᵀ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from loraone_theory.core.randomness import generator, normal, per_seed
from loraone_theory.core.validate import integer
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold
from loraone_theory.problems.sensing.bilinear import Bilinear
from loraone_theory.problems.sensing.indices import (
    add_rows,
    check_indices,
    hold_indices,
    known,
    stacked,
    take_rows,
)


@dataclass(frozen=True, eq=False, repr=False)
class SingleResponse(Bilinear):
    """𝒜(M)_i = √k x_iᵀM e_{j_i}: rank-one with z_i = √k e_{j_i}, held as indices.

    Args:
        X: (..., m, d).
        columns: j (..., m), int64, of the same batch; outputs may repeat.
        k: output width.
    """

    columns: Tensor
    k: int

    name: ClassVar[str] = "single-response"

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("k", self.k, least=1)
        hold_indices(self, "columns")
        check_indices("columns", self.columns, self.k, self.X.shape[:-1])

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor, stream: str = ""
    ) -> SingleResponse:
        """One operator per seed, outputs uniform and independent."""
        X = per_seed(lambda rng: normal(rng, measurements, d), seeds, f"{stream}inputs", like)
        draws = [
            generator(seed, f"{stream}outputs").integers(k, size=measurements) for seed in seeds
        ]
        return known(cls, X=X, columns=stacked(draws, like), k=k)

    def pick(self, indices: Tensor) -> SingleResponse:
        """The measurements `indices` (..., b)."""
        lead = len(self.batch_shape)
        X, columns = (take(each, indices, lead) for each in (self.X, self.columns))
        return known(SingleResponse, X=X, columns=columns, k=self.k)

    def outputs(self, fold: Fold, M: Tensor) -> Tensor:
        """√k times M gathered at j."""
        return self.k**0.5 * take_rows(M, fold.data(self.columns, 1))

    def spread(self, fold: Fold, M: Tensor) -> Tensor:
        """√k times M added up at j."""
        return self.k**0.5 * add_rows(M, fold.data(self.columns, 1), self.k)
