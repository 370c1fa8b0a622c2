"""What a record sees: one or many time points of a batch of runs, in one set of coordinates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

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


class _Shared(cached_property):
    """A field that is made once for all records, which must leave it as it is."""

    def __get__(self, view: Any, owner: Any = None) -> Any:
        known = view is None or self.attrname in vars(view)
        value = super().__get__(view, owner)
        if not known:
            view._made[self.attrname] = _versions(value)
        return value


def _versions(value: Any) -> list[int]:
    """How often each tensor has been written to."""
    if isinstance(value, Tensor):
        return [value._version]
    return [version for part in value or () for version in _versions(part)]


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
        given = ("trainable", "frozen", "offset")
        self._made = {name: _versions(getattr(self, name)) for name in given}

    def overwritten(self) -> list[str]:
        """Fields whose tensors have been written to since they were made."""
        return [name for name, known in self._made.items() if _versions(vars(self)[name]) != known]

    @_Shared
    def shift(self) -> Factors:
        """What is added to W_f: sAB."""
        return self.parametrisation.shift(self.trainable, self.frozen)

    @_Shared
    def sides(self) -> Factors:
        """The pair whose column and row spaces are compared with the gradient's."""
        return self.parametrisation.sides(self.trainable, self.frozen)

    @_Shared
    def learned(self) -> Factors:
        """What has been added to W: sAB − offset."""
        if self.offset is None:
            return self.shift
        return concatenate(self.shift, Factors(-self.offset.A, self.offset.B))

    @_Shared
    def residual(self) -> Tensor:
        """E = W_f + sAB − W − Δ."""
        return needed(self.problem, "residual", "this record")(self.shift)

    @_Shared
    def known(self) -> tuple[Tensor, ...]:
        """E for the losses that take it, nothing for the others."""
        return (self.residual,) if fact(self.problem, "takes_residual") else ()

    @_Shared
    def loss(self) -> Tensor:
        """L, (times, *batch).

        Raises:
            TypeError: the problem's loss gives something else.
        """
        batch = self.trainable[0].shape[:-2]
        if fact(self.problem, "one_by_one"):
            losses = [
                self._whole(self.problem.loss(at), batch[1:]) for at in self._times(self.shift)
            ]
            return torch.stack(losses)
        return self._whole(self.problem.loss(self.shift, *self.known), batch)

    def _whole(self, loss: Any, batch: torch.Size) -> Tensor:
        """The loss, if it is one number for each run."""
        if not isinstance(loss, Tensor) or loss.shape != batch:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(
                f"loss of {type(self.problem).__name__} must give a tensor {tuple(batch)}, one "
                f"number for each run; got {got}; reduce over the last two dimensions alone, and "
                "expand what does not depend on the point"
            )
        return loss

    def _times(self, shift: Factors) -> list[Factors]:
        """The points of each time on their own."""
        batch = broadcast(shift.A.shape[:-2], shift.B.shape[:-2])
        A, B = (M.expand(*batch, *M.shape[-2:]) for M in shift)
        return [Factors(*pair) for pair in zip(A, B, strict=True)]

    @_Shared
    def reference(self) -> Reference:
        """Frames of the one-step gradient's leading singular spaces."""
        return self._against()

    @_Shared
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

    @_Shared
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
