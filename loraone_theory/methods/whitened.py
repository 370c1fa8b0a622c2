"""Preconditioned descent that knows the inputs' covariance Σ.

With A′ = Σ^{1/2}A descent on inputs x = Σ^{1/2}z is descent on the white z with ∇_{A′} multiplied
by Σ. Neither plain nor preconditioned descent is invariant under that; this one is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.core.validate import Array
from loraone_theory.methods import parts
from loraone_theory.methods.base import Method
from loraone_theory.methods.gradient import lora_one
from loraone_theory.methods.rules.base import Drops, Rule, check_rates, descend


def whitened_preconditioned(covariance: Array, *, base: Method | None = None) -> Method:
    """A ← A − ηΣ⁻¹∇_A(BBᵀ + λI)⁻¹, B ← B − η(AᵀΣA + λI)⁻¹∇_B, from Spectral-init.

    The step is exactly that of preconditioned descent on the white problem, whatever Σ is. It
    stands beside `METHODS`, whose rows need no Σ.

    Args:
        covariance: Σ (d, d), symmetric positive definite.
        base: the method whose start it has; LoRA-One by default.

    Raises:
        TypeError, ValueError: Σ is no such matrix, or the method trains no pair.
    """
    if base is not None:
        validate.instance("base", base, Method)
    Sigma = validate.tensor("covariance", covariance, owned=True)
    validate.shapes_match(
        "covariance must be square", Sigma.shape == (len(Sigma),) * 2, covariance=Sigma.shape
    )
    L, failed = torch.linalg.cholesky_ex(Sigma)
    if int(failed) or not torch.allclose(Sigma, Sigma.mT):
        raise ValueError(
            "covariance must be symmetric positive definite; it has no Cholesky factor"
        )

    def factory(learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
        return _rule(learning_rate, damping, Sigma, L)

    train = parts.Part("whitened", factory, {}, frozenset({"damping"}))
    start = lora_one() if base is None else base
    return Method(
        f"{start.name}-whitened",
        start.start,
        start.parametrise,
        train,
        scaling=start.scaling,
        init_std=start.init_std,
        offset=start.offset,
    )


def _rule(learning_rate: Scalar, damping: Scalar, Sigma: Tensor, L: Tensor) -> Rule:
    check_rates("whitened", learning_rate, damping)

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (A, B), (grad_A, grad_B) = params, gradients
        left = inverse_psd(A.mT @ (Sigma.to(A) @ A), damping)
        right = inverse_psd(B @ B.mT, damping)
        step = torch.cholesky_solve(grad_A @ right.matrix, L.to(A).expand(*A.shape[:-2], *L.shape))
        new = (
            descend(A, step, learning_rate),
            descend(B, left.matrix @ grad_B, learning_rate),
        )
        return new, state.after(left, right)

    return Rule(
        Drops.none,
        update,
        dropped=lambda state: (state.steps, state.last),
        pair=True,
        inverts=True,
    )
