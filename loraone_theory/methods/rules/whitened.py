"""Preconditioned descent that knows the inputs' covariance Σ.

With A′ = Σ^{1/2}A descent on inputs x = Σ^{1/2}z is descent on the white z with ∇_{A′} multiplied
by Σ. Neither plain nor preconditioned descent is invariant under that; this one is.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.core.validate import Array
from loraone_theory.methods.rules.base import Drops, Rule, check_rates, descend

UNKNOWN = "no rate: those of descent in the metric of a covariance are not predicted"


def whitened(learning_rate: Scalar, damping: Scalar = 0.0, covariance: Array | None = None) -> Rule:
    """A ← A − ηΣ⁻¹∇_A(BBᵀ + λI)⁻¹, B ← B − η(AᵀΣA + λI)⁻¹∇_B, both from time-t values.

    The step is exactly that of preconditioned descent on the white problem, whatever Σ (d, d) is;
    without a `covariance` Σ = I.

    Raises:
        ValueError: Σ is not symmetric positive definite.
    """
    check_rates("whitened", learning_rate, damping)
    Sigma = None if covariance is None else _matrix(covariance)
    L = None if Sigma is None else _cholesky(Sigma)

    @functools.cache
    def placed(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Σ and L where the factors are, brought there once: no step waits for the host."""
        if Sigma is None or L is None:
            return None
        return Sigma.to(device, dtype), L.to(device, dtype)

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (A, B), (grad_A, grad_B) = params, gradients
        known = placed(A.dtype, A.device)
        SA = A if known is None else known[0] @ A
        left, right = inverse_psd(A.mT @ SA, damping), inverse_psd(B @ B.mT, damping)
        step = grad_A @ right.matrix
        if known is not None:
            step = torch.cholesky_solve(step, known[1].expand(*A.shape[:-2], *known[1].shape))
        new = (
            descend(A, step, learning_rate),
            descend(B, left.matrix @ grad_B, learning_rate),
        )
        return new, state.after(left, right)

    return Rule(
        Drops.none,
        update,
        equivariant=Sigma is None,
        dropped=lambda state: (state.steps, state.last),
        pair=True,
        inverts=True,
        no_rate=UNKNOWN,
        replays=True,
    )


def _matrix(covariance: Array) -> Tensor:
    Sigma = validate.tensor("covariance of rule 'whitened'", covariance)
    validate.shapes_match(
        "covariance must be square", Sigma.shape == (len(Sigma),) * 2, covariance=Sigma.shape
    )
    return Sigma.double()


def _cholesky(Sigma: Tensor) -> Tensor:
    L, failed = torch.linalg.cholesky_ex(Sigma)
    if int(failed) or not torch.allclose(Sigma, Sigma.mT):
        raise ValueError(
            "covariance must be symmetric positive definite; it has no Cholesky factor"
        )
    return L
