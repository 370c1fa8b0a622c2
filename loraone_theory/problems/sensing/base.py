"""What a measurement operator 𝒜: R^{d×k} → R^m offers, and what the library's own share.

An operator divides by nothing: with E aaᵀ = I on R^{dk} it is 𝒜*𝒜/m that tends to the identity,
and it is the problem that divides by m.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.shown import Shown


class MeasurementOperator(Protocol):
    """𝒜 on matrices (..., d, k), which it takes as Factors; y has shape (..., m)."""

    @property
    def name(self) -> str:
        """The ensemble, for messages."""

    @property
    def d(self) -> int:
        """Rows of the matrices it measures."""

    @property
    def k(self) -> int:
        """Columns of the matrices it measures."""

    @property
    def measurements(self) -> int:
        """m, the number of scalar measurements."""

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""

    @property
    def like(self) -> Tensor:
        """A tensor that carries dtype and device."""

    @property
    def label_scale(self) -> float:
        """What the noise of a label is multiplied by in its measurement."""

    def forward(self, F: Factors) -> Tensor:
        """𝒜(AB), shape (..., m)."""

    def tangent(self, F: Factors, dF: Factors) -> Tensor:
        """𝒜(dA·B + A·dB), shape (..., m)."""

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """(𝒜*(y)Bᵀ, Aᵀ𝒜*(y))."""

    def miss_and_pull(self, F: Factors, y: Tensor) -> tuple[Tensor, Factors]:
        """The miss 𝒜(AB) − y and its `pull`, which share work where they can."""

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)M for M (..., k, p), shape (..., d, p)."""

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)ᵀM for M (..., d, p), shape (..., k, p)."""

    def adjoint(self, y: Tensor) -> Tensor:
        """𝒜*(y) (..., d, k) in full, refused above DENSE_LIMIT entries."""

    def gradient(self, y: Tensor) -> Tensor | Implicit:
        """𝒜*(y), formed only where the operator itself holds or forms d×k matrices."""


class Fold(NamedTuple):
    """How the runs of a batch that share one instance are laid side by side as further columns.

    An operator's data has the instances' batch alone; runs of a sweep, or snapshots of one run,
    come as leading dimensions. As columns of one product they read the data once.

    Args:
        batch: of all runs.
        own: trailing part of `batch` that the data varies over, () where there is one instance.
    """

    batch: torch.Size
    own: torch.Size

    @classmethod
    def of(cls, own: torch.Size, *others: torch.Size) -> Fold:
        """For data of batch `own` and matrices of batches `others`."""
        batch = torch.broadcast_shapes(own, *others)
        if own.numel() == 1:
            return cls(batch, torch.Size())
        return cls(batch, batch[len(batch) - len(own) :])

    @property
    def instances(self) -> int:
        """n: how many matrices the data holds."""
        return prod(self.own)

    @property
    def runs(self) -> int:
        """L: how many runs share an instance."""
        return prod(self.batch[: len(self.batch) - len(self.own)])

    def data(self, M: Tensor, trailing: int = 2) -> Tensor:
        """An operator's data as (n, ...)."""
        rest = M.shape[M.ndim - trailing :]
        if not self.own:
            return M.reshape(1, *rest)
        return M.expand(*self.own, *rest).reshape(-1, *rest)

    def columns(self, M: Tensor) -> Tensor:
        """(..., p, q) as (n, p, L·q)."""
        p, q = M.shape[-2:]
        wide = M.expand(*self.batch, p, q).reshape(self.runs, self.instances, p, q)
        return wide.permute(1, 2, 0, 3).reshape(self.instances, p, self.runs * q)

    def back(self, M: Tensor) -> Tensor:
        """(n, p, L·q) as (*batch, p, q)."""
        n, p, q = M.shape[0], M.shape[1], M.shape[2] // self.runs
        return M.view(n, p, self.runs, q).permute(2, 0, 1, 3).reshape(*self.batch, p, q)

    def vectors(self, y: Tensor) -> Tensor:
        """(..., m) as (n, m, L)."""
        return self.columns(y[..., None])

    def scalars(self, M: Tensor, q: int) -> Tensor:
        """Sums over q of (n, m, L·q), as (*batch, m)."""
        return self.back(M.view(*M.shape[:2], self.runs, q).sum(-1))[..., 0]

    def weighted(self, M: Tensor, y: Tensor) -> Tensor:
        """The columns of M (n, m, L·q) times the y (n, m, L) of their run."""
        wide = M.view(*M.shape[:2], self.runs, M.shape[2] // self.runs)
        return (wide * y[..., None]).view_as(M)


def hold(operator: Any, **least_dims: int) -> None:
    """Fields of an operator as tensors of at least so many dimensions; numpy is taken over.

    Raises:
        TypeError: neither float32 nor float64, or no array.
        ValueError: fewer dimensions, or one of size 0, as at m = 0.
    """
    for name, dims in least_dims.items():
        given = validate.tensor(name, vars(operator)[name], least_dims=dims, finite=False)
        object.__setattr__(operator, name, given)


class Operator(Shown):
    """What follows from `forward`, `adjoint_right` and `adjoint_left` alone."""

    name: ClassVar[str]
    forms: ClassVar[bool] = False  # whether it holds or forms d×k matrices anyway
    repeats: ClassVar[bool] = False  # whether it is drawn with or without replacement
    replays: ClassVar[bool] = True  # as of a problem (`problems.base.Facts`)
    d: int
    k: int

    @property
    def samples(self) -> int:
        """What minibatches are drawn from: the measurements."""
        return self.measurements  # type: ignore[attr-defined]

    @property
    def label_scale(self) -> float:
        """One: a label is a measurement."""
        return 1.0

    def forward(self, F: Factors) -> Tensor:
        """𝒜(AB)."""
        raise NotImplementedError

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)M."""
        raise NotImplementedError

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)ᵀM."""
        raise NotImplementedError

    def tangent(self, F: Factors, dF: Factors) -> Tensor:
        """𝒜(dA·B + A·dB), as 𝒜 of [dA A][B; dB]."""
        batch = torch.broadcast_shapes(F.shape[:-2], dF.shape[:-2])
        A = [M.expand(*batch, *M.shape[-2:]) for M in (dF.A, F.A)]
        B = [M.expand(*batch, *M.shape[-2:]) for M in (F.B, dF.B)]
        return self.forward(Factors(torch.cat(A, dim=-1), torch.cat(B, dim=-2)))

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """(𝒜*(y)Bᵀ, Aᵀ𝒜*(y))."""
        return Factors(self.adjoint_right(y, F.B.mT), self.adjoint_left(y, F.A).mT)

    def miss_and_pull(self, F: Factors, y: Tensor) -> tuple[Tensor, Factors]:
        """𝒜(AB) − y and its `pull`, one after the other."""
        miss = self.forward(F) - y
        return miss, self.pull(miss, F)

    def adjoint(self, y: Tensor) -> Tensor:
        """𝒜*(y) in full.

        Raises:
            ValueError: it has more than DENSE_LIMIT entries.
        """
        memory.refuse_beyond_dense(
            "an adjoint", self.d, self.k, "use adjoint_right and adjoint_left with thin matrices"
        )
        return self.adjoint_right(y, torch.eye(self.k, dtype=y.dtype, device=y.device))

    def gradient(self, y: Tensor) -> Tensor | Implicit:
        """𝒜*(y): formed where the operator forms d×k matrices anyway, else by its products."""
        if self.forms:
            return self.adjoint(y)
        shape = torch.Size((*y.shape[:-1], self.d, self.k))
        return Implicit(
            shape,
            lambda M: self.adjoint_right(y, M),
            lambda M: self.adjoint_left(y, M),
            y,
        )
