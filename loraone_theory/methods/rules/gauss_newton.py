"""Gauss–Newton alternation: each factor goes to where the loss is least in it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.linalg import matrix_norm

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.iterative import conjugate_gradients
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.methods.rules.base import Drops, Rule, check_rates, descend, in_turn


def gauss_newton(learning_rate: Scalar, damping: Scalar = 0.0, iterations: int = 50) -> Rule:
    """A⁺ = A − η(H_A + λI)†∇_A(A, B), then B⁺ = B − η(H_B + λI)†∇_B(A⁺, B).

    H_A X = ∇_A(A + X, B) − ∇_A(A, B) is the Hessian in A of a loss quadratic in W, X ↦ 𝒜*𝒜(XB)Bᵀ/m
    in sensing, and η = 1 is alternating least squares. The systems are solved by at most
    `iterations` conjugate gradients each, preconditioned by (BBᵀ + λI)†: at the population one is
    enough, and the step is that of `alternating`.

    Reference: Jia et al. 2024, the alternating Gauss–Newton step and its approximation.
    """
    check_rates("gauss-newton", learning_rate, damping)
    most = validate.integer("iterations of rule 'gauss-newton'", iterations, least=1)

    def advance(
        params: Params, gradients: Callable[[Params], Params], state: Drops
    ) -> tuple[Params, Drops]:
        A, B = params
        right = inverse_psd(B @ B.mT, damping)
        G = gradients((A, B))[0]

        def at_A(X: Tensor) -> Tensor:
            return gradients((A + X, B))[0] - G + damping * X

        found = conjugate_gradients(_scaled(at_A, A), G, lambda M: M @ right.matrix, most)
        A = descend(A, found, learning_rate)
        left = inverse_psd(A.mT @ A, damping)
        G = gradients((A, B))[1]

        def at_B(Y: Tensor) -> Tensor:
            return gradients((A, B + Y))[1] - G + damping * Y

        found = conjugate_gradients(_scaled(at_B, B), G, lambda M: left.matrix @ M, most)
        return (A, descend(B, found, learning_rate)), state.after(left, right)

    return in_turn("gauss-newton", advance)


def _scaled(difference: Callable[[Tensor], Tensor], at: Tensor) -> Callable[[Tensor], Tensor]:
    """A linear map by differences, from changes as large as the factor: small ones lose digits."""

    def apply(X: Tensor) -> Tensor:
        size, whole = (matrix_norm(M, keepdim=True) for M in (X, at))
        scale = (whole / size.clamp_min(1e-300)).where((size > 0) & (whole > 0), 1.0)
        return difference(scale * X) / scale

    return apply
