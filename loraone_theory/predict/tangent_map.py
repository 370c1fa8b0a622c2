"""How small steps of a pair change its product, and which of them the product does not see.

Near (A, B) a rule of the form A ← A − η∇_A P², B ← B − ηQ²∇_BF² moves the error by −ηJKJᵀ, with K
the curvature of the loss in AB and J(X, Y) = X PB + AQ YF, the tangent map between the roots of
the rule's weights. The μ of the local rates are the nonzero eigenvalues of JᵀKJ; directions in the
null space of J, the gauge (XC, −CY) among them, are projected out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors

# Rules whose linearisation at a solution is known in closed form.
RuleName = Literal["gd", "preconditioned", "lora-pro"]


def tiny(M: Tensor) -> float:
    """√eps: singular values below this share of the largest are directions at rest.

    A run that has converged leaves superfluous directions at the rounding of the loss, not of the
    factors, which is the square of it.
    """
    return linalg.eps(M) ** 0.5


@dataclass(frozen=True, eq=False)
class TangentMap:
    """J(X, Y) = X PB + AQ YF, batch (...).

    Args:
        A: AQ (..., d, r).
        B: PB (..., r, k).
        right: P (..., r, r).
        left: Q (..., r, r).
        spared: (..., min(r, k)), 1 − F on the right singular vectors of B: 1 where B's step leaves
            its row space out (LoRA-Pro), else 0.
    """

    A: Tensor
    B: Tensor
    right: Tensor
    left: Tensor
    spared: Tensor

    def __post_init__(self) -> None:
        U, a, Wh = torch.linalg.svd(self.A, full_matrices=False)
        W, b, Vh = torch.linalg.svd(self.B, full_matrices=False)
        batch = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        a, b = _cut(a), _cut(b)
        parts = {"_U": U, "_a": a, "_WA": Wh.mT, "_WB": W, "_b": b, "_V": Vh.mT, "batch": batch}
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    @property
    def ranks(self) -> tuple[int, int]:
        """The least numerical ranks of A and B in the batch."""
        return int((self._a > 0).sum(-1).min()), int((self._b > 0).sum(-1).min())  # type: ignore[attr-defined]

    @property
    def outer(self) -> Tensor:
        """μ of directions off col(A) at K = I: the nonzero σ_j²(PB), (..., min(r, k)), or NaN."""
        b: Tensor = self._b  # type: ignore[attr-defined]
        return torch.where(b > 0, b**2, torch.nan)

    def spare(self, Y: Tensor) -> Tensor:
        """YF."""
        V: Tensor = self._V  # type: ignore[attr-defined]
        return Y - (Y @ V * self.spared[..., None, :]) @ V.mT

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        """J(X, Y), dense (..., d, k)."""
        return X @ self.B + self.A @ self.spare(Y)

    def adjoint(self, M: Tensor) -> Factors:
        """Jᵀ(M) for dense M (..., d, k)."""
        return Factors(M @ self.B.mT, self.spare(self.A.mT @ M))

    def project(self, X: Tensor, Y: Tensor) -> Factors:
        """The part of (X, Y) that J sees, Jᵀ(JJᵀ)†J(X, Y), without a d×k matrix.

        In the singular bases U, V of AQ and PB the operator JJᵀ(M) = M(PB)ᵀPB + AQ(AQ)ᵀMF² is
        diagonal: b_j² + a_i²F_j² inside, b_j² off U and a_i² off V.
        """
        U, a, WA = self._U, self._a[..., :, None], self._WA  # type: ignore[attr-defined]
        V, b, WB = self._V, self._b[..., None, :], self._WB  # type: ignore[attr-defined]
        F = 1 - self.spared[..., None, :]
        right = X @ (WB * b)
        below = a * (WA.mT @ self.spare(Y))
        inside = U.mT @ right
        off_U = (right - U @ inside) * _inverse(b**2)
        along = below @ V
        off_V = (below - along @ V.mT) * _inverse(a**2)
        core = (inside + along) * _inverse(b**2 + a**2 * F**2)
        # `below` carries F already; M F has it once more, and off V it is 1.
        return Factors(
            (U @ core + off_U) @ (b * WB).mT,
            (WA * a.mT) @ ((core * F) @ V.mT + off_V),
        )


def _cut(S: Tensor) -> Tensor:
    return torch.where(S > tiny(S) * S[..., :1], S, 0.0)


def _inverse(w: Tensor) -> Tensor:
    return torch.where(w > 0, 1 / torch.where(w > 0, w, torch.ones_like(w)), 0.0)


def tangent_map(
    at: Factors, rule: RuleName = "gd", *, damping: float = 0.0, ratio: float = 1.0
) -> TangentMap:
    """The tangent map of a rule at the pair `at`, batch (...).

    P = (BBᵀ + λI)^{−1/2} and Q = (AᵀA + λI)^{−1/2} of preconditioned GD and LoRA-Pro, whose B also
    spares F² = I − Bᵀ(BBᵀ + λI)⁻¹B; identities, with √ratio on the left, of GD and LoRA+.
    """
    A, B = at
    eye = torch.eye(A.shape[-1]).to(A)
    width = min(B.shape[-2:])
    spared = B.new_zeros(*B.shape[:-2], width)
    if rule == "gd":
        left = ratio**0.5 * eye
        return TangentMap(ratio**0.5 * A, B, eye, left, spared)
    right, left = _root_inverse(B @ B.mT, damping), _root_inverse(A.mT @ A, damping)
    if rule == "lora-pro":
        b = _cut(torch.linalg.svdvals(B))
        kept = damping / (b**2 + damping) if damping > 0 else torch.where(b > 0, 0.0, 1.0)
        spared = 1 - kept.sqrt()
    return TangentMap(A @ left, right @ B, right, left, spared)


def _root_inverse(M: Tensor, damping: float) -> Tensor:
    values, vectors = torch.linalg.eigh(M)
    values = values.clamp_min(0)
    keep = values > tiny(M) ** 2 * values[..., -1:]
    if damping > 0:
        keep = torch.ones_like(keep)
    weights = torch.where(keep, (values + damping).clamp_min(1e-300), 1.0) ** -0.5
    return (vectors * torch.where(keep, weights, 0.0)[..., None, :]) @ vectors.mT
