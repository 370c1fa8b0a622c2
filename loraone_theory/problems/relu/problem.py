"""The ReLU model on N samples: L = 1/(2N) ‖relu(X W_eff) − Y‖_F² with Y = relu(X(W + Δ))."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from loraone_theory.core import tall, validate
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.core.validate import Array
from loraone_theory.problems import rows
from loraone_theory.problems.described import Described
from loraone_theory.problems.given import rows_fit
from loraone_theory.problems.relu import closed_forms as relu_math
from loraone_theory.problems.relu.population import ReLUPopulation

# Rows of X are worked through in blocks whose N×k temporaries take about this many bytes each.
BLOCK_BYTES = 1 << 19
DEVICE_BLOCK_BYTES = 1 << 28


@dataclass(frozen=True, eq=False, repr=False)
class ReLUProblem(Described):
    """Fit Y = relu(X(W + Δ)) by relu(X(W_f + AB)) in least squares.

    With Z = XW_f + (XA)B and M = (relu(Z) − Y) ⊙ 1{Z > 0} the gradients are ∇_A = Xᵀ(MBᵀ)/N and
    ∇_B = (XA)ᵀM/N; J is never formed. Where XW is exactly 0, as with entries ±1, methods with an
    offset have a mask at t = 0 of the rounding of X(W − sA₀B₀) + sXA₀B₀. Make one with `from_data`.

    Args:
        inputs: X (..., N, d).
        population: the same problem at N = ∞, which holds W, Δ and the offset; `risk` is its.
        input_law: "gaussian" where fresh rows are N(0, I); None where their law is not known.
        held_out: the problem of held-out rows, for `test_loss`.
        recipe: the sampler that drew it and its arguments.
        noise: Z (..., N, k), added to the labels; the risk stays that of clean ones.
        noise_std: σ of the labels of fresh rows.
    """

    inputs: Tensor
    population: ReLUPopulation
    input_law: str | None = None
    held_out: ReLUProblem | None = None
    recipe: dict[str, Any] | None = None
    noise: Tensor | None = None
    noise_std: float = 0.0

    takes_residual: ClassVar[bool] = True
    replays: ClassVar[bool] = True
    spectral_gamma: ClassVar[float] = 2.0  # γ, as in the population

    @classmethod
    def from_data(
        cls,
        X: Array,
        *,
        pretrained: Array,
        shift: Array | Factors,
        held_out: Array | None = None,
        split: float = 0.0,
        split_seed: int = 0,
    ) -> ReLUProblem:
        """The problem of inputs X and labels Y = relu(X(W + Δ)).

        Args:
            X: (N, d) or (..., N, d), float32 or float64, a tensor or a numpy array.
            pretrained: W (d, k), with or without batch dimensions.
            shift: Δ (d, k), dense or Factors, with or without batch dimensions.
            held_out: other inputs (..., N', d), to measure `test_loss` on.
            split: the fraction of the rows of X that is held out instead, 0 <= split < 1.
            split_seed: what those rows are drawn with.

        Raises:
            TypeError: a dtype other than float32 or float64, or mixed ones.
            ValueError: shapes that do not fit, non-finite entries, a zero shift, inputs or a
                shift so large or small that their squares cannot be represented.

        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((50, 3))
        >>> problem = ReLUProblem.from_data(X, pretrained=np.eye(3), shift=0.1 * np.ones((3, 3)))
        >>> problem.d, problem.k, problem.true_rank, problem.samples
        (3, 3, 1, 50)
        """
        inputs = validate.tensor("X", X, owned=True)
        validate.tensor("pretrained", pretrained)
        population = ReLUPopulation(pretrained=pretrained, shift=shift)  # type: ignore[arg-type]
        lead = inputs.ndim - 2
        test: rows.Arrays = ()
        if held_out is not None:
            test = (validate.tensor("held_out", held_out, owned=True),)
        (inputs,), test = rows.split_off((inputs,), test, lead, split, split_seed)
        made = cls._of_rows("X", inputs, population)
        if not test:
            return made
        return replace(made, held_out=cls._of_rows("held_out", test[0], population))

    @classmethod
    def _of_rows(cls, name: str, X: Tensor, population: ReLUPopulation) -> ReLUProblem:
        rows_fit(name, X, population.pretrained, population.batch_shape)
        return cls(X, population)

    @property
    def d(self) -> int:
        """Input width."""
        return self.population.d

    @property
    def k(self) -> int:
        """Output width."""
        return self.population.k

    @property
    def samples(self) -> int:
        """N."""
        return self.inputs.shape[-2]

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """What each instance was drawn from, where it was drawn."""
        return self.population.seeds

    @property
    def true_rank(self) -> int:
        """r*, the rank of Δ."""
        return self.population.true_rank

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        return broadcast(self.inputs.shape[:-2], self.population.batch_shape)

    @property
    def work(self) -> int:
        """Entries of the N×k matrix that a step goes through, per instance."""
        return self.samples * self.k

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.population.like

    @property
    def relative_shift(self) -> Tensor:
        """c = max_m ‖Δ_m‖/‖w_m‖, shape (...)."""
        return self.population.relative_shift

    @property
    def pretrained(self) -> Tensor:
        """W (..., d, k)."""
        return self.population.pretrained

    @property
    def shift(self) -> Factors:
        """Δ as Factors."""
        return self.population.shift

    @cached_property
    def labels(self) -> Tensor:
        """Y = relu(XW + (XΔ_A)Δ_B), shape (..., N, k)."""
        shift = self.population.shift
        pre = tall.product(self.inputs, shift.A) @ shift.B
        clean = pre.add_(self.inputs @ self.pretrained).relu_()
        return clean if self.noise is None else clean.add_(self.noise)

    @cached_property
    def _frozen(self) -> Tensor:
        return self.inputs @ self.population.frozen

    def residual(self, shift: Factors) -> Tensor:
        """E = W_f + AB − W − Δ, learned minus true shift, shape (..., d, k)."""
        return self.population.residual(shift)

    def risk(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """½ E‖y − ŷ‖² over a fresh input x ~ N(0, I), exact, shape (...).

        That is the isotropic risk, whatever law the training inputs have.
        """
        return self.population.risk(shift, E)

    def loss(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """L = 1/(2N) ‖relu(Z) − Y‖_F², shape (...); E is not needed."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        out = self.like.new_zeros(batch)
        views = [M.expand(*batch, *M.shape[-2:]) for M in (*shift, *self.parts())]
        for index, part in self._blocks(batch):
            A, B, X, frozen, labels = (M[index] for M in views)
            miss = tall.product(X[..., part, :], A) @ B
            miss = miss.add_(frozen[..., part, :]).relu_().sub_(labels[..., part, :])
            out[index] += (miss * miss).sum((-2, -1))
        return out.div_(2 * self.samples)

    def gradients(self, shift: Factors) -> Factors:
        """(Xᵀ(MBᵀ)/N, (XA)ᵀM/N), in blocks of rows that stay in cache."""
        return self._pass(shift, None)

    def loss_and_gradients(self, shift: Factors) -> tuple[Tensor, Factors]:
        """The loss (...) with the gradients, for little more than these alone."""
        squares = self.like.new_zeros(broadcast(shift.shape[:-2], self.batch_shape))
        gradients = self._pass(shift, squares)
        return squares.div_(2 * self.samples), gradients

    def _pass(self, shift: Factors, squares: Tensor | None) -> Factors:
        """The gradients; ‖relu(Z) − Y‖_F² is added to `squares` if that is given."""
        batch = broadcast(shift.shape[:-2], self.batch_shape)
        grad_A = self.like.new_zeros(*batch, *shift.A.shape[-2:])
        grad_B = self.like.new_zeros(*batch, *shift.B.shape[-2:])
        views = [M.expand(*batch, *M.shape[-2:]) for M in (*shift, *self.parts())]
        Z = miss = self.like.new_empty(0)
        for index, part in self._blocks(batch):
            A, B, X, frozen, labels = (M[index] for M in views)
            X, frozen, labels = X[..., part, :], frozen[..., part, :], labels[..., part, :]
            if Z.shape != labels.shape:
                Z, miss = torch.empty_like(labels), torch.empty_like(labels)
            # Thin products have their short side first, which BLAS runs up to four times as fast.
            AX = A.mT @ X.mT
            torch.matmul(AX.mT, B, out=Z).add_(frozen)
            if squares is not None:
                torch.sub(Z.relu_(), labels, out=miss)
                squares[index] += miss.square().sum((-2, -1))
            else:  # where Z > 0, relu(Z) is Z; elsewhere the mask makes the entry 0
                torch.sub(Z, labels, out=miss)
            _mask(miss, Z, 0, grad_input=miss)
            grad_A[index].mT.add_((B @ miss.mT) @ X)
            grad_B[index].add_(AX @ miss)
        return Factors(grad_A.div_(self.samples), grad_B.div_(self.samples))

    def one_step_gradient(self) -> Tensor:
        """G = Xᵀ[(Y − relu(XW)) ⊙ 1{XW > 0}]/N, dense (..., d, k)."""
        Z = self.inputs @ self.pretrained
        return self.inputs.mT @ torch.where(Z > 0, self.labels - Z, 0.0) / self.samples

    def with_offset(self, offset: Factors) -> ReLUProblem:
        """The same problem with W_f = W − offset."""
        test = None if self.held_out is None else self.held_out.with_offset(offset)
        return replace(self, population=self.population.with_offset(offset), held_out=test)

    def batch(self, indices: Tensor) -> ReLUProblem:
        """The problem of the training rows `indices` (..., b), which broadcast to the runs."""
        X, frozen, labels = (rows.take(M, indices, M.ndim - 2) for M in self.parts())
        new = self._on(X)
        # Rows of what is known instead of products again.
        object.__setattr__(new, "labels", labels)
        object.__setattr__(new, "_frozen", frozen)
        return new

    @property
    def fresh(self) -> rows.Fresh | None:
        """(step, size, seeds) -> the problem of fresh rows, where their law is known."""
        return None if self.input_law is None else self._fresh

    @property
    def test_loss(self) -> Callable[[Factors], Tensor] | None:
        """Factors -> the loss on the held-out rows (...), where there are any."""
        return None if self.held_out is None else self.held_out.loss

    def _fresh(self, step: int, size: int, seeds: Sequence[int]) -> ReLUProblem:
        stream = f"fresh/{step}"
        new = self._on(per_seed(lambda g: normal(g, size, self.d), seeds, stream, self.like))
        if self.noise_std == 0:
            return new
        Z = per_seed(lambda g: normal(g, size, self.k), seeds, f"fresh noise/{step}", self.like)
        return replace(new, noise=self.noise_std * Z)

    def _on(self, X: Tensor) -> ReLUProblem:
        only: dict[str, Any] = {"input_law": None, "held_out": None, "recipe": None}
        return replace(self, inputs=X, noise=None, noise_std=0.0, **only)

    def with_shift_norm(self, norm: float = 1.0) -> ReLUProblem:
        """The problem of σW and σΔ with ‖σΔ‖_op = `norm`: the same relative errors."""
        if self.noise is not None:
            raise ValueError(
                "label noise has a size of its own, which W and Δ would be rescaled against; "
                "rescale before noise is added"
            )
        test = None if self.held_out is None else self.held_out.with_shift_norm(norm)
        scaled = self.population.with_shift_norm(norm)
        return replace(self, population=scaled, held_out=test, recipe=None)

    def parts(self) -> tuple[Tensor, ...]:
        """X, XW_f and Y: what a pass over the samples goes through."""
        return self.inputs, self._frozen, self.labels

    def _blocks(self, batch: torch.Size) -> list[tuple[tuple[int | slice, ...], slice]]:
        """Pieces of the batch and, where one instance is too large for the cache, of its rows."""
        size = DEVICE_BLOCK_BYTES if self.like.is_cuda else BLOCK_BYTES
        height = max(1, size // (self.k * self.like.element_size()))
        indices = relu_math.pieces(batch, max(1, height // self.samples))
        starts = range(0, self.samples, height)
        return [(index, slice(start, start + height)) for index in indices for start in starts]


# _mask(M, Z, 0, grad_input=M): M ⊙ 1{Z > 0} in one pass, without a mask in memory.
_mask = torch.ops.aten.threshold_backward.grad_input
