"""The ReLU model at N = ∞: loss, gradients and risk in closed form, no inputs at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from loraone_theory.core import linalg, tall, validate
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.problems.described import Described
from loraone_theory.problems.given import shift_and_pretrained
from loraone_theory.problems.relu import closed_forms as relu_math
from loraone_theory.problems.relu import descent_forms as forms

# Batches are worked through in pieces whose d×k temporaries take about this many bytes.
PIECE_BYTES = 1 << 20
DEVICE_PIECE_BYTES = 1 << 28
# From this many entries of W on, gradients are made from thin factors. Below it the
# factorisation costs more than the d×k temporaries that it avoids.
THIN_ENTRIES = 1 << 16


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ReLUPopulation(Described):
    """Fit relu(x(W + Δ)) by relu(x(W_f + AB)) for x ~ N(0, I_d), in expectation.

    The loss is ½ E‖y − ŷ‖² = ½ Σ_m [½‖E_m‖² − (‖w̃‖‖w'‖/π) g(θ)] with E = W̃ − W', θ the angle
    between the columns w̃ and w', and g(θ) = sin θ − θ cos θ; its gradients are ∇_A = −JBᵀ and
    ∇_B = −AᵀJ with J_m = ½E_m − (θ/2π) E_⊥ + (‖w̃‖/2π) g(θ) ŵ'. Reference: derivations 5.1;
    the one-step gradient is that of Lemma D.2.

    Args:
        pretrained: W (..., d, k), float32 or float64, a tensor or a numpy array.
        shift: Δ (..., d, k), dense or Factors.
        offset: what was subtracted from W in the frozen part: W_f = W − offset.
        seeds: what each instance was drawn from, where it was drawn.
        recipe: the sampler that drew it and its arguments.

    Raises:
        TypeError: a dtype other than float32 or float64, or mixed ones.
        ValueError: shapes that do not fit, non-finite entries, a zero shift.

    >>> W = torch.eye(3, dtype=torch.float64)
    >>> problem = ReLUPopulation(pretrained=W, shift=0.1 * W[:, [1, 2, 0]])
    >>> problem.true_rank, round(float(problem.relative_shift), 12)
    (3, 0.1)
    >>> zero = Factors(torch.zeros_like(W), W)
    >>> bool(0.25 <= problem.risk(zero) / 0.03 * 2 <= 0.5)
    True
    """

    pretrained: Tensor
    shift: Factors
    offset: Factors | None = None
    seeds: tuple[int, ...] | None = None
    recipe: dict[str, Any] | None = None

    takes_residual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        shift, weight = shift_and_pretrained(self.shift, self.pretrained)
        object.__setattr__(self, "shift", shift)
        object.__setattr__(self, "pretrained", weight)

    def _changed(self, **changes: Any) -> ReLUPopulation:
        """The same problem but for some fields, without another check and copy of all."""
        new = object.__new__(type(self))
        for field in fields(self):
            value = changes[field.name] if field.name in changes else getattr(self, field.name)
            object.__setattr__(new, field.name, value)
        return new

    @property
    def d(self) -> int:
        """Input width."""
        return self.pretrained.shape[-2]

    @property
    def k(self) -> int:
        """Output width."""
        return self.pretrained.shape[-1]

    @property
    def true_rank(self) -> int:
        """r*, the rank of Δ."""
        return self.shift.rank

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        shapes = [self.pretrained.shape[:-2], self.shift.shape[:-2]]
        if self.offset is not None:
            shapes.append(self.offset.shape[:-2])
        return broadcast(*shapes)

    @property
    def work(self) -> int:
        """Entries of the d×k matrix that a step goes through, per instance."""
        return self.d * self.k

    @property
    def replays(self) -> bool:
        """Unless a step may take the thin form, which looks at what it would lose."""
        return self.d * self.k < THIN_ENTRIES

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.shift.A

    @property
    def spectral_gamma(self) -> float:
        """γ = 2: the one-step gradient is ½Δ to leading order in the relative shift."""
        return 2.0

    @property
    def relative_shift(self) -> Tensor:
        """c = max_m ‖Δ_m‖/‖w_m‖, shape (...).

        Raises:
            ValueError: a column of W is zero.
        """
        sizes = torch.linalg.vector_norm(self.shift.dense(), dim=-2)
        weights = torch.linalg.vector_norm(self.pretrained, dim=-2)
        if not bool((weights > 0).all()):
            where = (weights == 0).reshape(-1, self.k).any(0).nonzero().flatten().tolist()
            raise ValueError(
                "the relative shift max_m |Delta_m|/|w_m| needs every column of W to be non-zero; "
                f"got |w_m| = 0 for m = {where}; drop those columns, or give gamma as a number"
            )
        return (sizes / weights).amax(-1)

    @property
    def target(self) -> Factors:
        """T = Δ + offset, what AB has to equal."""
        return self.shift if self.offset is None else concatenate(self.shift, self.offset)

    @cached_property
    def frozen(self) -> Tensor:
        """W_f = W − offset (..., d, k)."""
        return self.pretrained if self.offset is None else self.pretrained - self.offset.dense()

    @cached_property
    def _dense_target(self) -> Tensor:
        return self.target.dense()

    @cached_property
    def _target_weight(self) -> Tensor:
        return self.pretrained + self.shift.dense()

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k), learned minus true shift, formed explicitly."""
        return tall.difference(shift.A @ shift.B, self._dense_target)

    def risk(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """½ E‖y − ŷ‖² at W_f + AB, shape (...), piece by piece over the batch."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        out = self.like.new_empty(batch)
        parts = [self._target_weight, *((shift.A, shift.B) if E is None else (E,))]
        target = self._dense_target.expand(*batch, self.d, self.k)
        views = [M.expand(*batch, *M.shape[-2:]) for M in parts]
        for index in self._pieces(batch):
            weight, *rest = (M[index] for M in views)
            learned = rest[0] @ rest[1] - target[index] if E is None else rest[0]
            out[index] = 0.5 * relu_math.squared_error(-learned, weight + learned)
        return out

    def loss(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """The training loss, which here is the risk, shape (...)."""
        return self.risk(shift, E)

    def gradients(self, shift: Factors) -> Factors:
        """(−JBᵀ, −AᵀJ); large problems without any d×k temporary."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        return self._by_pieces(shift, batch, thin=self._goes_thin(shift))

    def loss_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """The loss (...) with the gradients, for little more than these alone."""
        seen, gradients = self.seen_and_gradients(shift)
        return self.loss_of(seen), gradients

    def seen_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """What the gradients know of the columns (..., 4, k), for `loss_of`, and themselves."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        seen = self.like.new_empty(*batch, 4, self.k)
        return seen, self._by_pieces(shift, batch, thin=self._goes_thin(shift), seen=seen)

    @staticmethod
    def loss_of(seen: Tensor) -> Tensor:
        """The losses (...) at points whose gradients have seen this."""
        size, along, across, squares = seen.unbind(-2)
        of = relu_math.Columns(size, along, across)
        return relu_math.squared_error_of(of, squares.sum(-1)).div_(2)

    def _goes_thin(self, shift: Factors) -> bool:
        return self.d * self.k >= THIN_ENTRIES and 4 * (shift.rank + self.target.rank) <= self.d

    def one_step_gradient(self) -> Tensor:
        """G = J at W, dense (..., d, k): ½Δ less a part of relative size c/π (Lemma D.2)."""
        return relu_math.negative_gradient(self.shift.dense(), self.pretrained)

    def with_offset(self, offset: Factors) -> ReLUPopulation:
        """The same problem with W_f = W − offset."""
        total = offset if self.offset is None else concatenate(self.offset, offset)
        return self._changed(offset=total)

    def with_shift_norm(self, norm: float = 1.0) -> ReLUPopulation:
        """The problem of σW and σΔ with ‖σΔ‖_op = `norm`: the same relative errors.

        >>> W = torch.eye(3, dtype=torch.float64)
        >>> problem = ReLUPopulation(pretrained=W, shift=0.1 * W).with_shift_norm(2.0)
        >>> bool(torch.allclose(problem.shift.dense(), 2 * W))
        True
        """
        norm = validate.number("norm", norm, positive=True)
        sigma = norm / linalg.truncated_svd(self.shift, 1).S[..., None]
        offset = self.offset and Factors(self.offset.A, self.offset.B * sigma)
        shift = Factors(self.shift.A, self.shift.B * sigma)
        scaled = self.pretrained * sigma
        return self._changed(pretrained=scaled, shift=shift, offset=offset, recipe=None)

    def _pieces(self, batch: torch.Size) -> list[tuple[int | slice, ...]]:
        size = DEVICE_PIECE_BYTES if self.like.is_cuda else PIECE_BYTES
        most = size // (self.d * self.k * self.like.element_size())
        return list(relu_math.pieces(batch, most))

    def _by_pieces(
        self, shift: Factors, batch: torch.Size, *, thin: bool, seen: Tensor | None = None
    ) -> Factors:
        parts = [self.frozen, *shift, *(self._thin_parts if thin else (self._dense_target,))]
        views = [M.expand(*batch, *M.shape[-2:]) for M in parts]
        form: Callable[..., Factors] = forms.thin if thin else forms.dense
        indices = relu_math.pieces(batch, 1) if thin else self._pieces(batch)
        grad_A = self.like.new_empty(*batch, *shift.A.shape[-2:])
        grad_B = self.like.new_empty(*batch, *shift.B.shape[-2:])
        for index in indices:
            given = [M[index] for M in (*views, *(() if seen is None else (seen,)))]
            grad_A[index], grad_B[index] = form(*given)
        return Factors(grad_A, grad_B)

    @cached_property
    def _thin_parts(self) -> tuple[Tensor, ...]:
        """An orthonormal basis Q of T's columns, QᵀT, QᵀW_f, T's factors, and ‖W_f‖² by column."""
        target, W = self.target, self.frozen
        Q = torch.linalg.qr(target.A).Q
        squares = (W * W).sum(-2, keepdim=True)
        return Q, Q.mT @ target.A @ target.B, Q.mT @ W, target.A, target.B, squares
