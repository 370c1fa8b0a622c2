"""Operators of the user's own: a pair of functions, or a scipy LinearOperator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy  # loads its parts when they are first used
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, normal
from loraone_theory.problems.sensing.base import Operator

# ⟨𝒜M, y⟩ and ⟨M, 𝒜*y⟩ of a random pair agree to this many machine epsilons, relative to
# ‖𝒜M‖‖y‖ + ‖M‖‖𝒜*y‖.
ADJOINT = 1e4


@dataclass(frozen=True, eq=False, repr=False)
class Given(Operator):
    """𝒜 as two functions of single matrices and vectors, called run by run.

    The theory counts on E 𝒜*𝒜/m = I: scale 𝒜 so.

    Args:
        measure: M (d, k) -> 𝒜(M) (m,).
        adjoint_of: y (m,) -> 𝒜*(y) (d, k).
        d: rows of the matrices.
        k: their columns.
        measurements: m.
        like: a tensor that carries dtype and device.

    Raises:
        ValueError: results of another shape or not finite, or functions that are not each other's
            adjoint.

    >>> halves = Given(lambda M: M.sum(0), lambda y: y.expand(2, 3), 2, 3, 3, torch.ones(1))
    >>> halves.forward(Factors(torch.ones(2, 1), torch.tensor([[1.0, 2, 3]])))
    tensor([2., 4., 6.])
    """

    measure: Callable[[Tensor], Tensor]
    adjoint_of: Callable[[Tensor], Tensor]
    d: int
    k: int
    measurements: int
    like: Tensor

    name: ClassVar[str] = "given"
    forms: ClassVar[bool] = True
    replays: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("d", "k", "measurements"):
            validate.integer(name, vars(self)[name], least=1)
        rng = generator(0, "adjoint")
        M, y = (
            torch.from_numpy(normal(rng, *shape)).to(self.like)
            for shape in ((self.d, self.k), (self.measurements,))
        )
        forward, back = self.measure(M), self.adjoint_of(y)
        validate.shapes_match(
            f"measure must map ({self.d}, {self.k}) to ({self.measurements},) and adjoint_of back",
            forward.shape == y.shape and back.shape == M.shape,
            measure=forward.shape,
            adjoint_of=back.shape,
        )
        for name, found in (("measure", forward), ("adjoint_of", back)):
            if not bool(torch.isfinite(found).all()):
                raise ValueError(
                    f"{name} must give finite numbers; got {int((~torch.isfinite(found)).sum())} "
                    f"NaN or infinite ones of {found.numel()} for a Gaussian argument"
                )
        left, right = float((forward * y).sum()), float((M * back).sum())
        size = float(forward.norm() * y.norm() + M.norm() * back.norm())
        if not abs(left - right) <= ADJOINT * torch.finfo(M.dtype).eps * size:
            raise ValueError(
                "measure and adjoint_of must be each other's adjoint, <A(M), y> = <M, A*(y)>; "
                f"got {left:.6g} and {right:.6g} for a random M and y"
            )

    @classmethod
    def from_scipy(
        cls,
        operator: scipy.sparse.linalg.LinearOperator,
        *,
        d: int,
        k: int,
        like: Tensor | None = None,
    ) -> Given:
        """From an operator of shape (m, d·k) on matrices laid out row by row.

        Anything that scipy makes a LinearOperator of: one of PyLops, a sparse or a dense matrix.
        One that computes in float32 measures in float32, where `like` does not say otherwise.

        Raises:
            TypeError: something else, or a complex one.
            ValueError: its shape does not fit d and k, or it has no adjoint.
        """
        try:
            operator = scipy.sparse.linalg.aslinearoperator(operator)
        except TypeError:
            raise TypeError(
                "operator must be a scipy.sparse.linalg.LinearOperator, have its shape, matvec and "
                f"rmatvec, or be a matrix; got {type(operator).__name__}"
            ) from None
        if np.dtype(operator.dtype or float).kind == "c":
            raise TypeError(f"operator must be real; got one of dtype {operator.dtype}")
        validate.shapes_match(
            "operator must have d * k columns",
            len(operator.shape) == 2 and operator.shape[1] == d * k,
            operator=operator.shape,
            matrices=(d, k),
        )
        if like is None:
            single = np.dtype(operator.dtype or float) == np.float32
            like = torch.empty(0, dtype=torch.float32 if single else torch.float64)

        def apply(call: Callable[[np.ndarray], np.ndarray], v: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(call(v.detach().cpu().numpy()))).to(like)

        try:
            operator.rmatvec(np.zeros(operator.shape[0]))
        except NotImplementedError as error:
            raise ValueError(
                "operator must know its adjoint, which gradients are made of; give rmatvec= when "
                "making it"
            ) from error
        return cls(
            lambda M: apply(operator.matvec, M.reshape(-1)),
            lambda y: apply(operator.rmatvec, y).reshape(d, k),
            d,
            k,
            int(operator.shape[0]),
            like,
        )

    @property
    def batch_shape(self) -> torch.Size:
        """One operator."""
        return torch.Size()

    def forward(self, F: Factors) -> Tensor:
        """𝒜(AB), run by run."""
        M = F.dense()
        runs = [self.measure(each) for each in M.reshape(-1, self.d, self.k)]
        return torch.stack(runs).view(*M.shape[:-2], self.measurements)

    def adjoint(self, y: Tensor) -> Tensor:
        """𝒜*(y), run by run."""
        runs = [self.adjoint_of(each) for each in y.reshape(-1, self.measurements)]
        return torch.stack(runs).view(*y.shape[:-1], self.d, self.k)

    def adjoint_right(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)M."""
        return self.adjoint(y) @ M

    def adjoint_left(self, y: Tensor, M: Tensor) -> Tensor:
        """𝒜*(y)ᵀM."""
        return self.adjoint(y).mT @ M

    def pull(self, y: Tensor, F: Factors) -> Factors:
        """Both products of one 𝒜*(y)."""
        J = self.adjoint(y)
        return Factors(J @ F.B.mT, F.A.mT @ J)
