"""Dense sensing by K = 𝒜*𝒜/m, a dk×dk matrix in place of m matrices d×k.

With E = AB − T for any T, z = y − 𝒜(T) and h = 𝒜*(z)/m the loss is ½⟨E, KE⟩ − ⟨h, E⟩ + ‖z‖²/2m and
its gradient KE − h: 2(dk)² a step in place of 4mdk. At T = Δ the loss of noiseless labels keeps all
of its digits; with noise, m >= 2dk keeps ‖z‖²/2m below a few times the least loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing.base import Fold
from loraone_theory.problems.sensing.operators.dense import Dense

# Measurements for each entry of a d×k matrix from which K pays.
ENOUGH = 2
# K takes m(dk)² multiplications, as many as dk/2 gradients do, but in one product of matrices: per
# number that is about this many times as fast.
PRODUCT = 8


def pays(entries: int, measurements: int, evaluations: float) -> bool:
    """Whether K is worth making for that many gradients: m >= 2dk and evaluations >= dk/16.

    >>> pays(400, 1000, 30), pays(400, 1000, 20), pays(400, 500, 1000)
    (True, False, False)
    """
    return measurements >= ENOUGH * entries and evaluations >= entries / (2 * PRODUCT)


class Gram(NamedTuple):
    """The loss and gradient of a dense problem by K.

    Args:
        K: (..., dk, dk).
        T: (..., d, k), what AB is compared with.
        h: (..., d, k).
        constant: ‖z‖²/2m (...).
    """

    K: Tensor
    T: Tensor
    h: Tensor
    constant: Tensor

    @classmethod
    def of(cls, operator: Dense, labels: Tensor, target: Factors | None) -> Gram:
        """From the labels y (..., m) and what AB has to equal.

        Without a target T is the best fit of any rank, or 0 where the measurements leave it open.
        """
        m, K = operator.measurements, operator.gram
        T = _fit(K, operator.adjoint(labels) / m) if target is None else target
        z = labels - operator.forward(T)
        return cls(K, T.dense(), operator.adjoint(z) / m, (z * z).sum(-1) / (2 * m))

    def loss(self, shift: Factors) -> Tensor:
        """½⟨E, KE⟩ − ⟨h, E⟩ + ‖z‖²/2m, shape (...)."""
        E = shift.dense() - self.T
        return (E * (0.5 * self._times(E) - self.h)).sum((-2, -1)) + self.constant

    def pull(self, shift: Factors) -> Factors:
        """(RBᵀ, AᵀR) with R = KE − h."""
        E = shift.dense() - self.T
        R = self._times(E) - self.h
        return Factors(R @ shift.B.mT, shift.A.mT @ R)

    def _times(self, E: Tensor) -> Tensor:
        fold = Fold.of(self.K.shape[:-2], E.shape[:-2])
        product = fold.data(self.K) @ fold.vectors(E.flatten(-2))
        return fold.back(product)[..., 0].unflatten(-1, E.shape[-2:])


def _fit(K: Tensor, G: Tensor) -> Factors:
    """M with KM = G, or 0, as Factors."""
    root, failed = torch.linalg.cholesky_ex(K)
    found = torch.zeros_like(G)
    if not bool(failed.any()):
        solved = torch.cholesky_solve(G.flatten(-2)[..., None], root)
        found = solved[..., 0].unflatten(-1, G.shape[-2:])
    return Factors(found, torch.eye(G.shape[-1]).to(G))
