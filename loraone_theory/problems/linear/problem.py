"""Linear matrix sensing: L = 1/(2N) ‖X W_eff − Y‖_F², without X.

With noiseless labels Y = X(W + Δ) it is ½⟨E, Σ̂E⟩: the inputs enter through Σ̂ = XᵀX/N alone, so
that is all a problem keeps of them, unless it is asked to keep X for minibatches. What labels hold
beyond that enters through Z̃ and a constant (`noise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from loraone_theory.core import memory, tall, validate
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors
from loraone_theory.core.validate import Array
from loraone_theory.problems import rows
from loraone_theory.problems.described import Described
from loraone_theory.problems.given import shift_and_pretrained
from loraone_theory.problems.linear import data
from loraone_theory.problems.linear.blocks import gradients_by_rows
from loraone_theory.problems.linear.covariance import Covariance, Identity, Which
from loraone_theory.problems.linear.laws import population_covariance
from loraone_theory.problems.linear.streams import RowStreams
from loraone_theory.problems.shifted import Shifted

# Rows of a large problem are worked through in pieces of about this many bytes, to stay in cache.
BLOCK_BYTES = 1 << 24
# Facts that compare with the true shift.
NEEDS_SHIFT = frozenset({"true_rank", "shift", "residual", "risk", "takes_residual"})


@dataclass(frozen=True, eq=False, repr=False)
class LinearProblem(RowStreams, Shifted, Described):
    """Fit W + Δ by W_f + AB under the loss ½‖CE − Z̃‖² + c, E = W_f + AB − W − Δ, Σ̂ = CᵀC.

    Without noise that is ½⟨E, Σ̂E⟩. Gradients: J = CᵀZ̃ − Σ̂E, ∇_A = −J Bᵀ, ∇_B = −Aᵀ J. Make
    one with `from_data`, `population`, `sample_linear` or `sample_linear_matrix_free`.

    Args:
        covariance: Σ̂ as an operator, batch (...).
        shift: Δ as Factors of inner dimension r* exactly; of inner dimension 0 where Δ is not
            known, and then `noise` holds all of the labels.
        pretrained: W (..., d, k), needed only by initialisations that use W.
        offset: what was subtracted from W in the frozen part: W_f = W − offset.
        samples: N, or None for the population problem.
        matrix_free: the instance is known only up to a rotation of the input space, so methods
            that are not rotation-equivariant have no meaning on it.
        seeds: what each instance was drawn from, where it was drawn.
        inputs: X (..., N, d), where it was kept.
        input_law: of the rows, by name, "given" for a callable; None where it is not known. Fresh
            rows are drawn by "gaussian", "rademacher" and "sphere".
        held_out: the problem of held-out rows, for `test_loss`.
        recipe: the sampler that drew it and its arguments.
        noise: Z̃ (..., h, k), what the labels hold beyond Δ in the coordinates of C.
        constant: c (...), what no AB changes.
        row_noise: Z (..., N, k), where X was kept.
        noise_std: σ of the labels of fresh rows.
        population_covariance: Σ of the inputs' law, None for I: the risk is ½ tr(EᵀΣE).
    """

    covariance: Covariance
    shift: Factors
    pretrained: Tensor | None = None
    offset: Factors | None = None
    samples: int | None = None
    matrix_free: bool = False
    seeds: tuple[int, ...] | None = None
    inputs: Tensor | None = None
    input_law: str | None = None
    held_out: LinearProblem | None = None
    recipe: dict[str, Any] | None = None
    noise: Tensor | None = None
    constant: Tensor | None = None
    row_noise: Tensor | None = None
    noise_std: float = 0.0
    population_covariance: Covariance | None = None

    takes_residual: ClassVar[bool] = True
    replays: ClassVar[bool] = True

    @classmethod
    def from_data(
        cls,
        X: Array,
        *,
        shift: Array | Factors | None = None,
        labels: Array | None = None,
        pretrained: Array | None = None,
        keep: bool = False,
        held_out: Array | Sequence[Array] | None = None,
        split: float = 0.0,
        split_seed: int = 0,
    ) -> LinearProblem:
        """The problem of inputs X and labels Y, which are X(W + Δ) unless they are given.

        Args:
            X: (N, d) or (..., N, d), float32 or float64, a tensor, a numpy array or a DataFrame.
            shift: Δ (d, k), dense or Factors, with or without batch dimensions. Without it there
                must be labels; risk, error and alignments are then not known.
            labels: Y (..., N, k), noisy or not.
            pretrained: W (d, k); without it the labels count as those of the shift alone.
            keep: hold a copy of X, which minibatches need; only Σ̂ is held otherwise.
            held_out: other inputs (..., N', d), to measure `test_loss` on; with labels, a pair.
            split: the fraction of the rows of X that is held out instead, 0 <= split < 1.
            split_seed: what those rows are drawn with.

        Raises:
            TypeError: a dtype other than float32 or float64, or mixed ones.
            ValueError: shapes that do not fit, non-finite entries, a zero shift, inputs or a
                shift so large or small that their squares cannot be represented; neither a
                shift nor labels.

        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((50, 3))
        >>> problem = LinearProblem.from_data(X, shift=np.eye(3)[:, :2])
        >>> problem.d, problem.k, problem.true_rank, problem.samples
        (3, 2, 2, 50)
        >>> LinearProblem.from_data(X, labels=X[:, :2]).k
        2
        """
        given = data.check(X, shift, labels, pretrained)
        lead, test = given.arrays[0].ndim - 2, data.own_test(held_out, given)
        kept, test = rows.split_off(given.arrays, test, lead, split, split_seed)
        keep = validate.flag("keep", keep)
        made = cls(**data.of_rows("X", kept, given, keep))
        if not test:
            return made
        return replace(made, held_out=cls(**data.of_rows("held_out", test, given, False)))

    @classmethod
    def population(
        cls,
        *,
        shift: Array | Factors,
        pretrained: Array | None = None,
        covariance: Array | None = None,
    ) -> LinearProblem:
        """The problem at N = ∞: Σ̂ = Σ, the identity unless `covariance` gives it.

        Other args and errors are those of `from_data`.
        """
        delta, weight = shift_and_pretrained(shift, pretrained)
        law = population_covariance(covariance, delta.shape[-2], delta.A)
        at = Identity(delta.A.new_ones(delta.shape[-2])) if law is None else law
        return cls(at, delta, weight, input_law="gaussian", population_covariance=law)

    @property
    def unknown(self) -> frozenset[str]:
        """Facts that it cannot state."""
        return frozenset() if self.shift.rank else NEEDS_SHIFT

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        shapes = [self.covariance.batch_shape]
        shapes += [M.shape[:-2] for M in (self.shift, self.offset, self.noise) if M is not None]
        return broadcast(*shapes)

    @property
    def spectral_gamma(self) -> float:
        """γ = 1: in the linear model the one-step gradient is Δ in expectation."""
        return 1.0

    @cached_property
    def dense_target(self) -> Tensor:
        """T (..., d, k) in full.

        Raises:
            ValueError: it has more than DENSE_LIMIT entries.
        """
        memory.refuse_beyond_dense(
            "a residual",
            self.d,
            self.k,
            "simulate with reduce='auto', which works in a few columns",
        )
        return tall.product(*self.target)

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k), formed explicitly: small residuals keep their digits."""
        T = self.dense_target  # refuses what is too large before the product is formed
        return tall.difference(tall.product(shift.A, shift.B), T)

    def loss(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """L = ½‖CE − Z̃‖² + c, shape (...); E may be handed in where it is already known."""
        if self.noise is not None:
            R = self._miss(self.covariance.half(shift.A), shift.B)
            loss = 0.5 * (R * R).sum((-2, -1))
        elif E is None and self.covariance.height is not None:
            loss = 0.5 * (self._miss(self.covariance.half(shift.A), shift.B) ** 2).sum((-2, -1))
        else:
            E = self.residual(shift) if E is None else E
            loss = 0.5 * (E * self.covariance.apply(E)).sum((-2, -1))
        return loss if self.constant is None else loss + self.constant

    def risk(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """½ tr(EᵀΣE), the expected loss on a fresh sample less the noise's own, shape (...).

        Where Σ was not given it counts as I, whatever law the training inputs have.
        """
        E = self.residual(shift) if E is None else E
        if self.population_covariance is not None:
            return 0.5 * (E * self.population_covariance.apply(E)).sum((-2, -1))
        return 0.5 * (E * E).sum((-2, -1))

    def gradients(self, shift: Factors) -> Factors:
        """(−JBᵀ, −AᵀJ); large problems in blocks of rows, so that E stays in cache."""
        A, B = shift
        if self.covariance.height is not None or self.noise is not None:
            CA = self.covariance.half(A)
            R = self._miss(CA, B)
            return Factors(self.covariance.half_transposed(R @ B.mT), CA.mT @ R)
        height = BLOCK_BYTES // (8 * (A.shape[-1] + 2 * self.k))
        if self.covariance.reach is not None and self.d > height:
            return gradients_by_rows(self.covariance, self.dense_target, shift, max(height, 256))
        M = self.covariance.apply(self.residual(shift))
        return Factors(tall.product(M, B.mT), tall.inner(A, M))

    def _miss(self, CA: Tensor, B: Tensor) -> Tensor:
        """R = C(AB − T) − Z̃, by thin products: ∇_A = CᵀRBᵀ and ∇_B = (CA)ᵀR."""
        return CA @ B - self.answer

    @cached_property
    def answer(self) -> Tensor:
        """Ỹ = CT + Z̃ (..., h, k), what C·AB has to equal."""
        T = self.target
        answer = self.covariance.half(T.A) @ T.B
        return answer if self.noise is None else answer + self.noise

    def one_step_gradient(self) -> Factors:
        """G = Σ̂Δ + CᵀZ̃ as Factors, of rank r* where there is no noise."""
        G = Factors(self.covariance.apply(self.shift.A), self.shift.B)
        if self.noise is None:
            return G
        whole = G.dense() + self.covariance.half_transposed(self.noise)
        return Factors(whole, torch.eye(self.k).to(whole))

    def with_offset(self, offset: Factors) -> LinearProblem:
        """The same problem with W_f = W − offset."""
        test = None if self.held_out is None else self.held_out.with_offset(offset)
        return replace(self, offset=self.offset_with(offset), held_out=test)

    def covariance_spectrum(self, which: Which = "extremes") -> Tensor:
        """Eigenvalues of Σ̂, ascending: `"extremes"` (..., 2) or `"all"` (..., d)."""
        validate.choice("which", which, ("extremes", "all"))
        return self.covariance.spectrum(which)

    def covariance_deviation(self) -> Tensor:
        """ε = ‖Σ̂ − I‖_op, shape (...) (Eq. 8)."""
        return (self.covariance.spectrum("extremes") - 1).abs().amax(-1)
