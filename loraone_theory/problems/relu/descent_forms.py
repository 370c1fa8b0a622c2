"""The gradients of the ReLU model at N = ∞ of one piece of a batch: dense, or from thin factors.

Both also write what they know of the columns into `seen` (..., 4, k), if that is given: ‖w'‖, E·ŵ',
‖E_⊥‖ and ‖E‖², of which the loss is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import tall
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu import closed_forms as relu_math

# The thin form knows the part of w' outside span(Δ, A) by a difference of squares. Where less
# than this fraction of ‖w'‖² is outside, it hands the step over to the dense form.
LEAST_OUTSIDE = 1 / 16


def dense(W: Tensor, A: Tensor, B: Tensor, target: Tensor, seen: Tensor | None = None) -> Factors:
    """(−JBᵀ, −AᵀJ) with E = T − AB and W' = W_f + AB formed."""
    AB = A @ B
    E, weight = target - AB, AB.add_(W)
    of = relu_math.columns(E, weight)
    if seen is not None:
        torch.stack((*of, (E * E).sum(-2)), dim=-2, out=seen)
    first, second = relu_math.gradient_weights(of)
    J = E.mul_(first[..., None, :]).addcmul_(weight, second[..., None, :])
    return Factors(tall.product(J, B.mT).neg_(), (A.mT @ J).neg_())


def thin(
    W: Tensor,
    A: Tensor,
    B: Tensor,
    Q: Tensor,
    coordinates: Tensor,
    inside_W: Tensor,
    left: Tensor,
    right: Tensor,
    squares: Tensor,
    seen: Tensor | None = None,
) -> Factors:
    """One instance in an orthonormal basis [Q, P] of span(T, A): two products with W.

    E = [Q P] C with small C, so its column norms are those of C. Everything outside the basis
    belongs to W alone.
    """
    p = Q.shape[-1]
    P = torch.linalg.qr(torch.cat([Q, A], dim=-1)).Q[..., p:]
    A_in = torch.cat([Q.mT @ A, P.mT @ A], dim=-2)
    C = -(A_in @ B)
    inside = torch.cat([inside_W, P.mT @ W], dim=-2)
    outside = squares[..., 0, :] - (inside * inside).sum(-2)
    inside -= C  # W' = W_f + AB within the basis
    C[..., :p, :] += coordinates
    total = (inside * inside).sum(-2) + outside.clamp_min(0)
    if not bool((outside > LEAST_OUTSIDE * torch.maximum(total, squares[..., 0, :])).all()):
        return dense(W, A, B, left @ right, seen)
    size = total.sqrt()
    along = (C * inside).sum(-2) / size
    tilt = along / size
    rest = C - inside * tilt[..., None, :]
    across = ((rest * rest).sum(-2) + tilt * tilt * outside).sqrt()
    of = relu_math.Columns(size, along, across)
    if seen is not None:
        torch.stack((*of, (C * C).sum(-2)), dim=-2, out=seen)
    first, second = relu_math.gradient_weights(of)
    scaled, weighted = C * first[..., None, :], B * second[..., None, :]
    J_in = scaled + inside * second[..., None, :]
    basis = torch.cat([Q, P], dim=-1)
    inner = scaled @ B.mT + A_in @ (B @ weighted.mT)
    grad_A = tall.product(W, weighted.mT) + basis @ inner
    return Factors(grad_A.neg_(), (A_in.mT @ J_in).neg_())
