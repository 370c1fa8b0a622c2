"""Linear matrix sensing: L = 1/(2N) ‖X W_eff − Y‖_F² = ½⟨E, Σ̂E⟩, without X.

With noiseless labels Y = X(W + Δ) the inputs enter through Σ̂ = XᵀX/N alone, so that is all a
problem keeps of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from loraone_theory.core import tall, validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.validate import Array
from loraone_theory.problems.given import shift_and_pretrained
from loraone_theory.problems.linear.covariance import Covariance, Dense, Identity, Which

# Rows of a large problem are worked through in pieces of about this many bytes, to stay in cache.
BLOCK_BYTES = 1 << 24
# Residuals of more entries than this are refused: such a problem is meant to be reduced.
DENSE_LIMIT = 1 << 31


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """Fit W + Δ by W_f + AB under the loss ½⟨E, Σ̂E⟩, E = W_f + AB − W − Δ.

    Gradients: J = −Σ̂E, ∇_A = −J Bᵀ, ∇_B = −Aᵀ J. Make one with `from_data`,
    `population`, `sample_linear` or `sample_linear_matrix_free`.

    Args:
        covariance: Σ̂ as an operator, batch (...).
        shift: Δ as Factors of inner dimension r* exactly.
        pretrained: W (..., d, k), needed only by initialisations that use W.
        offset: what was subtracted from W in the frozen part: W_f = W − offset.
        samples: N, or None for the population problem.
        matrix_free: the instance is known only up to a rotation of the input space, so methods
            that are not rotation-equivariant have no meaning on it.
        seeds: what each instance was drawn from, where it was drawn.
    """

    covariance: Covariance
    shift: Factors
    pretrained: Tensor | None = None
    offset: Factors | None = None
    samples: int | None = None
    matrix_free: bool = False
    seeds: tuple[int, ...] | None = None

    takes_residual: ClassVar[bool] = True

    @classmethod
    def from_data(
        cls, X: Array, *, shift: Array | Factors, pretrained: Array | None = None
    ) -> LinearProblem:
        """The problem of inputs X and labels Y = X(W + Δ).

        Args:
            X: (N, d) or (..., N, d), float32 or float64, a tensor or a numpy array.
            shift: Δ (d, k), dense or Factors, with or without batch dimensions.
            pretrained: W (d, k).

        Raises:
            TypeError: a dtype other than float32 or float64, or mixed ones.
            ValueError: shapes that do not fit, non-finite entries, a zero shift.

        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((50, 3))
        >>> problem = LinearProblem.from_data(X, shift=np.eye(3)[:, :2])
        >>> problem.d, problem.k, problem.true_rank, problem.samples
        (3, 2, 2, 50)
        """
        inputs = validate.tensor("X", X)
        delta, weight = shift_and_pretrained(shift, pretrained)
        validate.same_kind(X=inputs, shift=delta.A)
        N, d = inputs.shape[-2:]
        validate.shapes_match(
            "shift must have as many rows as X has columns (d)",
            delta.shape[-2] == d,
            X=inputs.shape,
            shift=delta.shape,
        )
        validate.broadcastable("X", inputs.shape[:-2], "shift", delta.shape[:-2])
        return cls(Dense(inputs.mT @ inputs / N), delta, weight, samples=N)

    @classmethod
    def population(
        cls, *, shift: Array | Factors, pretrained: Array | None = None
    ) -> LinearProblem:
        """The problem at N = ∞ for isotropic inputs: Σ̂ = I.

        Args and errors are those of `from_data`.
        """
        delta, weight = shift_and_pretrained(shift, pretrained)
        return cls(Identity(delta.A.new_ones(delta.shape[-2])), delta, weight)

    @property
    def d(self) -> int:
        """Input width."""
        return self.shift.A.shape[-2]

    @property
    def k(self) -> int:
        """Output width."""
        return self.shift.B.shape[-1]

    @property
    def true_rank(self) -> int:
        """r*, the rank of Δ."""
        return self.shift.rank

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        shapes = [self.covariance.batch_shape, self.shift.shape[:-2]]
        if self.offset is not None:
            shapes.append(self.offset.shape[:-2])
        return torch.broadcast_shapes(*shapes)

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.shift.A

    @property
    def spectral_gamma(self) -> float:
        """γ = 1: in the linear model the one-step gradient is Δ in expectation."""
        return 1.0

    @property
    def target(self) -> Factors:
        """T = Δ + offset, what AB has to equal."""
        return self.shift if self.offset is None else concatenate(self.shift, self.offset)

    @cached_property
    def dense_target(self) -> Tensor:
        """T (..., d, k) in full.

        Raises:
            ValueError: it has more than DENSE_LIMIT entries.
        """
        if self.d * self.k > DENSE_LIMIT:
            raise ValueError(
                f"a residual of d x k = {self.d} x {self.k} entries is too large to hold; "
                "simulate with reduce='auto', which works in a few columns"
            )
        return tall.product(*self.target)

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k), formed explicitly: small residuals keep their digits."""
        T = self.dense_target  # refuses what is too large before the product is formed
        return tall.difference(tall.product(shift.A, shift.B), T)

    def loss(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """L = ½⟨E, Σ̂E⟩, shape (...); E may be handed in where it is already known."""
        E = self.residual(shift) if E is None else E
        return 0.5 * (E * self.covariance.apply(E)).sum((-2, -1))

    def risk(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """½‖E‖_F², the expected loss on a fresh isotropic sample, shape (...)."""
        E = self.residual(shift) if E is None else E
        return 0.5 * (E * E).sum((-2, -1))

    def gradients(self, shift: Factors) -> Factors:
        """(Σ̂E Bᵀ, AᵀΣ̂E); large problems in blocks of rows, so that E stays in cache."""
        A, B = shift
        rows = BLOCK_BYTES // (8 * (A.shape[-1] + 2 * self.k))
        if self.covariance.reach is not None and self.d > rows:
            return self._gradients_by_rows(A, B, max(rows, 256))
        M = self.covariance.apply(self.residual(shift))
        return Factors(tall.product(M, B.mT), tall.inner(A, M))

    def _gradients_by_rows(self, A: Tensor, B: Tensor, rows: int) -> Factors:
        reach, d, T = self.covariance.reach or 0, self.d, self.dense_target
        batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2], self.batch_shape)
        grad_A = A.new_empty(*batch, A.shape[-1], d)
        grad_B = B.new_zeros(*batch, *B.shape[-2:])
        for start in range(0, d, rows):
            stop = min(start + rows, d)
            low, high = max(start - reach, 0), min(stop + reach, d)
            E = tall.product(A[..., low:high, :], B)
            E = tall.difference(E, T[..., low:high, :])
            M = self.covariance.rows(low, high).apply(E)[..., start - low : stop - low, :]
            torch.matmul(B, M.mT, out=grad_A[..., start:stop])
            grad_B += tall.inner(A[..., start:stop, :], M)
        return Factors(grad_A.mT, grad_B)

    def one_step_gradient(self) -> Factors:
        """G = Σ̂Δ as Factors of rank r*: the negative full gradient at W."""
        return Factors(self.covariance.apply(self.shift.A), self.shift.B)

    def with_offset(self, offset: Factors) -> LinearProblem:
        """The same problem with W_f = W − offset."""
        total = offset if self.offset is None else concatenate(self.offset, offset)
        return replace(self, offset=total)

    def covariance_spectrum(self, which: Which = "extremes") -> Tensor:
        """Eigenvalues of Σ̂, ascending: `"extremes"` (..., 2) or `"all"` (..., d)."""
        validate.choice("which", which, ("extremes", "all"))
        return self.covariance.spectrum(which)

    def covariance_deviation(self) -> Tensor:
        """ε = ‖Σ̂ − I‖_op, shape (...) (Eq. 8)."""
        return (self.covariance.spectrum("extremes") - 1).abs().amax(-1)
