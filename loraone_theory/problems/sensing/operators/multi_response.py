"""Multi-response regression as an ensemble: a = √k x_i e_jᵀ for every i and j."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.core.validate import integer, shapes_match
from loraone_theory.problems.rows import take
from loraone_theory.problems.sensing.base import Fold
from loraone_theory.problems.sensing.bilinear import OfInputs


@dataclass(frozen=True, eq=False, repr=False)
class MultiResponse(OfInputs):
    """𝒜(M) = √k XM row by row, m = Nk: with L = ‖·‖²/2m this is the linear model's ‖·‖²/2N.

    One label's noise is √k times as large in its measurement.

    Args:
        X: (..., N, d).
        k: output width.
    """

    k: int

    name: ClassVar[str] = "multi-response"

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("k", self.k, least=1)

    @classmethod
    def sample(
        cls, d: int, k: int, measurements: int, seeds: Sequence[int], like: Tensor, stream: str = ""
    ) -> MultiResponse:
        """One operator per seed, with the inputs that `sample_linear` draws.

        Raises:
            ValueError: `measurements` is no multiple of k.
        """
        shapes_match(
            "the multi-response ensemble measures all k outputs of each input: "
            "measurements must be a multiple of k",
            measurements % k == 0,
            measurements=(measurements,),
            k=(k,),
        )
        inputs = measurements // k
        X = per_seed(lambda rng: normal(rng, inputs, d), seeds, f"{stream}inputs", like)
        return cls(X, k)

    @property
    def samples(self) -> int:
        """N: a minibatch takes all outputs of its inputs."""
        return self.X.shape[-2]

    @property
    def measurements(self) -> int:
        """m = Nk."""
        return self.samples * self.k

    def pick(self, indices: Tensor) -> MultiResponse:
        """All outputs of the inputs `indices` (..., b)."""
        return MultiResponse(take(self.X, indices, len(self.batch_shape)), self.k)

    @property
    def label_scale(self) -> float:
        """√k."""
        return self.k**0.5

    def forward(self, F: Factors) -> Tensor:
        """√k (XA)B, row by row."""
        return (self.label_scale * (self._times(F.A) @ F.B)).flatten(-2)

    def miss_and_pull(self, F: Factors, y: Tensor) -> tuple[Tensor, Factors]:
        """𝒜(AB) − y and its pull, from one XA."""
        XA = self._times(F.A)
        miss = (self.label_scale * (XA @ F.B)).flatten(-2) - y
        M = self.label_scale * self._rows(miss)
        return miss, Factors(self._transposed_times(M @ F.B.mT), XA.mT @ M)

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """√k Xᵀ(YM)."""
        return self._transposed_times(self.label_scale * (self._rows(y) @ M))

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """√k Yᵀ(XM)."""
        return self.label_scale * (self._rows(y).mT @ self._times(M))

    def _rows(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (self.samples, self.k))

    def _times(self, M: Tensor) -> Tensor:
        fold = Fold.of(self.batch_shape, M.shape[:-2])
        return fold.back(fold.data(self.X) @ fold.columns(M))

    def _transposed_times(self, M: Tensor) -> Tensor:
        fold = Fold.of(self.batch_shape, M.shape[:-2])
        return fold.back(fold.data(self.X).mT @ fold.columns(M))
