"""A problem that is known by its loss alone; gradients by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from loraone_theory.core import tall
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.problems import rows
from loraone_theory.problems.described import Described

# loss(W) or loss(W, *data) -> a scalar tensor, for one W (d, k).
Loss = Callable[..., Tensor]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LossProblem(Described):
    """Minimise a given loss(W_f + AB); its gradient by automatic differentiation.

    Make one with `from_loss`.

    Args:
        function: loss(W) or loss(W, *data), a scalar for W (d, k).
        start: W, or zeros where no W was given, (..., d, k).
        data: the training arrays, (N, ...) each, or (*instances, N, ...) where `batched`.
        batched: how many leading dimensions of the data count instances.
        held_out: the same arrays of rows kept for `test_loss`, or none.
        pretrained: W where it was given.
        shift: Δ where it is known.
        offset: what was subtracted from W in the frozen part: W_f = W − offset.
        spectral_gamma: γ of Spectral-init.
        expected: the expected loss as a function of W, or None.
        draw: (generator, size) -> `size` fresh rows of every array, or None.
        chunk: how many runs are differentiated at once; None for all.
        seeds: what each instance was drawn from, where it was drawn.
        recipe: the sampler that drew it and its arguments; None where data were given.
    """

    function: Loss
    start: Tensor
    data: tuple[Tensor, ...] = ()
    batched: int = 0
    held_out: tuple[Tensor, ...] = ()
    pretrained: Tensor | None = None
    shift: Factors | None = None
    offset: Factors | None = None
    spectral_gamma: float = 1.0
    expected: Loss | None = None
    draw: rows.Draw | None = None
    chunk: int | None = None
    seeds: tuple[int, ...] | None = None
    recipe: dict[str, Any] | None = None

    one_by_one: ClassVar[bool] = True

    @property
    def d(self) -> int:
        """Input width."""
        return self.start.shape[-2]

    @property
    def k(self) -> int:
        """Output width."""
        return self.start.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        shapes = [self.start.shape[:-2], *(array.shape[: self.batched] for array in self.data[:1])]
        shapes += [] if self.offset is None else [self.offset.shape[:-2]]
        return broadcast(*shapes)

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.start

    @property
    def samples(self) -> int | None:
        """N, or None for a loss without data."""
        return self.data[0].shape[self.batched] if self.data else None

    @property
    def true_rank(self) -> int | None:
        """r*, the rank of Δ, where Δ is known."""
        return None if self.shift is None else self.shift.rank

    @property
    def work(self) -> int:
        """Entries that a step goes through, per instance."""
        instances = self.batch_shape.numel() if self.batched else 1
        return self.d * self.k + sum(array.numel() for array in self.data) // instances

    @property
    def residual(self) -> Callable[[Factors], Tensor] | None:
        """Factors -> E = W_f + AB − W − Δ (..., d, k), where Δ is known."""
        return None if self.shift is None else self._residual

    @property
    def risk(self) -> Callable[[Factors], Tensor] | None:
        """Factors -> the expected loss (...), where it was given."""
        return None if self.expected is None else self._risk

    @property
    def test_loss(self) -> Callable[[Factors], Tensor] | None:
        """Factors -> the loss on the held-out rows (...), where there are any."""
        return self._test_loss if self.held_out else None

    @property
    def fresh(self) -> rows.Fresh | None:
        """(step, size, seeds) -> the problem of fresh rows, where a law to draw from was given."""
        return None if self.draw is None else self._fresh

    @cached_property
    def frozen(self) -> Tensor:
        """W_f = W − offset (..., d, k)."""
        return self.start if self.offset is None else self.start - self.offset.dense()

    def loss(self, shift: Factors) -> Tensor:
        """The training loss at W_f + AB, shape (...)."""
        return self.over_batch(self.function, self._weight(shift), self.data)

    def gradients(self, shift: Factors) -> Factors:
        """(−JBᵀ, −AᵀJ) from the gradient −J of the loss at W_f + AB."""
        slope = self.over_batch(torch.func.grad(self.function), self._weight(shift), self.data)
        return Factors(tall.product(slope, shift.B.mT), shift.A.mT @ slope)

    def one_step_gradient(self) -> Tensor:
        """G = −∇_W of the loss at W, dense (..., d, k)."""
        W = self.start.expand(*self.batch_shape, self.d, self.k)
        return -self.over_batch(torch.func.grad(self.function), W, self.data)

    def with_offset(self, offset: Factors) -> LossProblem:
        """The same problem with W_f = W − offset."""
        total = offset if self.offset is None else concatenate(self.offset, offset)
        return replace(self, offset=total)

    def batch(self, indices: Tensor) -> LossProblem:
        """The problem of the training rows `indices` (..., b), which broadcast to the runs."""
        picked = tuple(rows.take(array, indices, self.batched) for array in self.data)
        return replace(self, data=picked, batched=max(self.batched, indices.ndim - 1))

    def _fresh(self, step: int, size: int, seeds: Sequence[int]) -> LossProblem:
        assert self.draw is not None  # `fresh` is None otherwise
        drawn = rows.fresh(self.draw, step, size, seeds)
        return replace(self, data=tuple(self._cast(array) for array in drawn), batched=1)

    def _cast(self, array: Tensor) -> Tensor:
        wanted = self.like.dtype if array.is_floating_point() else array.dtype
        return array.to(device=self.like.device, dtype=wanted)

    def _residual(self, shift: Factors) -> Tensor:
        assert self.shift is not None
        known = self.shift if self.offset is None else concatenate(self.shift, self.offset)
        return tall.difference(shift.A @ shift.B, known.dense())

    def _risk(self, shift: Factors) -> Tensor:
        assert self.expected is not None
        return self.over_batch(self.expected, self._weight(shift), ())

    def _test_loss(self, shift: Factors) -> Tensor:
        return self.over_batch(self.function, self._weight(shift), self.held_out)

    def _weight(self, shift: Factors) -> Tensor:
        """W_f + AB, one for each run."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        return (self.frozen + shift.A @ shift.B).expand(*batch, self.d, self.k)

    def over_batch(
        self, function: Callable[..., Tensor], W: Tensor, data: tuple[Tensor, ...]
    ) -> Tensor:
        """function(W, *data) of every run, stacked: (*batch, ...).

        Trailing axes that count instances of the data run along with it; the others share it.
        """
        batch, lead = W.shape[:-2], self.batched
        cut = len(batch) - lead
        inner, outer = batch[cut:], batch[:cut]
        flat = list(data)
        if lead:
            wide = (array.expand(*inner, *array.shape[lead:]) for array in data)
            flat = [array.flatten(0, lead - 1) for array in wide]
            W = W.reshape(*outer, inner.numel(), self.d, self.k)
            function = torch.func.vmap(function, chunk_size=self.chunk)
        if outer:
            W = W.reshape(outer.numel(), *W.shape[cut:])
            shared = (0, *(None for _ in flat))
            function = torch.func.vmap(function, in_dims=shared, chunk_size=self.chunk)
        found = function(W, *flat)
        return found.reshape(batch + found.shape[bool(outer) + bool(lead) :])
