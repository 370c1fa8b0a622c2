"""What a record sees: one or many time points of a batch of runs, in one set of coordinates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import linalg, tall
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.factors import Factors, Params, concatenate
from loraone_theory.methods.parametrisations import Parametrisation
from loraone_theory.problems.base import Problem, fact, needed


class Reference(NamedTuple):
    """What alignments are measured against: frames of U_{r*}(G) and V_{r*}(G)."""

    U: Tensor  # (..., d, r*)
    V: Tensor  # (..., k, r*)


def reference(problem: Problem) -> Reference:
    """The top-r* singular frames of the one-step gradient."""
    rank = needed(problem, "true_rank", "an alignment")
    U, _, V = linalg.truncated_svd(problem.one_step_gradient(), rank)
    return Reference(tall.layout(U), tall.layout(V))


class View:
    """What is to be measured, with what several records share computed once.

    Tensors have shape (times, *batch, ...). Every field is there whatever else is recorded.

    Args:
        problem: with its offset.
        parametrisation: how `trainable` makes the learned shift.
        trainable: the trained tensors.
        frozen: those that are not.
        offset: what was subtracted from W in the frozen part, or None.
        count: how many singular values `learned` has in the original coordinates.
        against: () -> the Reference.
    """

    def __init__(
        self,
        problem: Problem,
        parametrisation: Parametrisation,
        trainable: Params,
        frozen: Params,
        offset: Factors | None,
        count: int,
        against: Callable[[], Reference],
    ) -> None:
        self.problem, self.parametrisation = problem, parametrisation
        self.trainable, self.frozen, self.offset = trainable, frozen, offset
        self._count, self._against = count, against

    @cached_property
    def shift(self) -> Factors:
        """What is added to W_f: sAB."""
        return self.parametrisation.shift(self.trainable, self.frozen)

    @cached_property
    def sides(self) -> Factors:
        """The pair whose column and row spaces are compared with the gradient's."""
        return self.parametrisation.sides(self.trainable, self.frozen)

    @cached_property
    def learned(self) -> Factors:
        """What has been added to W: sAB − offset."""
        if self.offset is None:
            return self.shift
        return concatenate(self.shift, Factors(-self.offset.A, self.offset.B))

    @cached_property
    def residual(self) -> Tensor:
        """E = W_f + sAB − W − Δ."""
        return needed(self.problem, "residual", "this record")(self.shift)

    @cached_property
    def known(self) -> tuple[Tensor, ...]:
        """E for the losses that take it, nothing for the others."""
        return (self.residual,) if fact(self.problem, "takes_residual") else ()

    @cached_property
    def loss(self) -> Tensor:
        """L, (times, *batch)."""
        if not fact(self.problem, "one_by_one"):
            return self.problem.loss(self.shift, *self.known)
        return torch.stack([self.problem.loss(at) for at in self._times(self.shift)])

    def _times(self, shift: Factors) -> list[Factors]:
        """The points of each time on their own."""
        batch = broadcast(shift.A.shape[:-2], shift.B.shape[:-2])
        A, B = (M.expand(*batch, *M.shape[-2:]) for M in shift)
        return [Factors(*pair) for pair in zip(A, B, strict=True)]

    @property
    def reference(self) -> Reference:
        """Frames of the one-step gradient's leading singular spaces."""
        return self._against()

    @cached_property
    def gradients(self) -> Params:
        """∇L with respect to each trained tensor."""
        return self.gradients_at(self.trainable)

    def gradients_at(self, trainable: Params) -> Params:
        """∇L at other values of the trained tensors."""
        shift = self.parametrisation.shift(trainable, self.frozen)
        if fact(self.problem, "one_by_one"):
            found = [self.problem.gradients(at) for at in self._times(shift)]
            gradients = Factors(*(torch.stack(parts) for parts in zip(*found, strict=True)))
        else:
            gradients = self.problem.gradients(shift)
        return tuple(self.parametrisation.pullback(trainable, self.frozen, gradients))

    @cached_property
    def singular_values(self) -> Tensor:
        """Those of `learned`, descending, (..., min(number of its columns A, d, k))."""
        A, B = self.learned
        if A.shape[-1] < min(A.shape[-2], B.shape[-1]):
            A, B = torch.linalg.qr(_finite(A), mode="r").R, torch.linalg.qr(_finite(B.mT)).R.mT
        values = torch.linalg.svdvals(_finite(A @ B))
        missing = self._count - values.shape[-1]  # zeros, in reduced coordinates
        return torch.nn.functional.pad(values, (0, missing)) if missing else values


def _finite(M: Tensor) -> Tensor:
    """M with zeros for what LAPACK refuses; the records of such a run are NaN anyway."""
    return torch.where(torch.isfinite(M), M, 0.0)
