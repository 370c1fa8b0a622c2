"""Some of an operator's measurements, for minibatches of operators that know no better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.problems import rows
from loraone_theory.problems.sensing.base import MeasurementOperator, Operator


@runtime_checkable
class Pickable(Protocol):
    """An operator that makes the operator of some of its measurements itself."""

    @property
    def samples(self) -> int:
        """What indices count: the measurements, or groups of as many each."""

    def pick(self, indices: Tensor) -> MeasurementOperator:
        """The operator of the measurements `indices` (..., b)."""


@dataclass(frozen=True, eq=False, repr=False)
class Picked(Operator):
    """The measurements `indices` of an operator, which makes all of them.

    Args:
        whole: 𝒜, batch (...).
        indices: (..., b), int64, as often as they are named.
    """

    whole: MeasurementOperator
    indices: Tensor

    name: ClassVar[str] = "picked"
    forms: ClassVar[bool] = True
    replays: ClassVar[bool] = False

    @property
    def d(self) -> int:  # type: ignore[override]
        """That of the whole."""
        return self.whole.d

    @property
    def k(self) -> int:  # type: ignore[override]
        """That of the whole."""
        return self.whole.k

    @property
    def measurements(self) -> int:
        """b."""
        return self.indices.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Of the whole and the indices."""
        return torch.broadcast_shapes(self.whole.batch_shape, self.indices.shape[:-1])

    @property
    def like(self) -> Tensor:
        """That of the whole."""
        return self.whole.like

    @property
    def label_scale(self) -> float:
        """That of the whole."""
        return self.whole.label_scale

    def forward(self, F: Factors) -> Tensor:
        """The entries `indices` of 𝒜(AB)."""
        y = self.whole.forward(F)
        batch = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
        at = self.indices.expand(*batch, self.measurements)
        return y.expand(*batch, y.shape[-1]).gather(-1, at)

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y placed at `indices`)M."""
        return self.whole.adjoint_right(self._placed(y), M)

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y placed at `indices`)ᵀM."""
        return self.whole.adjoint_left(self._placed(y), M)

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """The whole operator's, of y placed at `indices`."""
        return self.whole.pull(self._placed(y), F)

    def _placed(self, y: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
        at = self.indices.expand(*batch, self.measurements)
        out = y.new_zeros(*batch, self.whole.measurements)
        return out.scatter_add_(-1, at, y.expand(*batch, self.measurements))


def samples(operator: MeasurementOperator) -> int:
    """How many minibatches draw from: the measurements, or the inputs of multi-response."""
    return operator.samples if isinstance(operator, Pickable) else operator.measurements


def pick(operator: MeasurementOperator, indices: Tensor) -> MeasurementOperator:
    """The operator of the samples `indices` (..., b)."""
    if isinstance(operator, Pickable):
        return operator.pick(indices)
    rows.take(indices.new_zeros(operator.measurements), indices, 0)  # refuses what is out of range
    return Picked(operator, indices)


def pick_labels(operator: MeasurementOperator, labels: Tensor, indices: Tensor) -> Tensor:
    """The labels of the samples `indices`, (..., m')."""
    grouped = labels.unflatten(-1, (samples(operator), -1))
    return rows.take(grouped, indices, labels.ndim - 1).flatten(-2)
