"""Gradient flow at Σ̂ = I in closed form, and the exact recursions of descent beside it.

T = U diag(λ) Vᵀ is the target. The flow of A' = −∇_A, B' = −∇_B is the limit η → 0 of descent at
time t = η·steps; descent is within O(η) of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, checked


def balanced(spectrum: Tensor, start: float | Tensor, times: Sequence[float] | Tensor) -> Tensor:
    """ε(t) = 1 − σ(t)/λ = (1 − ρ)x/(ρ + (1 − ρ)x), x = e^{−2λt}, from σ(0) = ρλ on the pairs of T.

    Balanced starts aligned with T (Spectral-init) keep to its pairs, where σ' = 2σ(λ − σ).

    Args:
        spectrum: λ (..., p), positive.
        start: ρ > 0, a number or (..., p).
        times: t >= 0, T of them.

    Returns:
        ε (T, ..., p).

    Reference: derivations 7.1.

    >>> balanced(torch.tensor([1.0]), 0.5, [0.0, 1.0]).round(decimals=4)
    tensor([[0.5000],
            [0.1192]])
    """
    lam = _positive("spectrum", spectrum)
    rho = _entries("start", start).to(lam)
    _positive("start", rho)
    x = torch.exp(-2 * lam * _times(times, lam))
    return (1 - rho) * x / (rho + (1 - rho) * x)


def balanced_descent(rate: float | Tensor, start: float | Tensor, steps: int) -> Tensor:
    """ε_t of descent from the same start: ε⁺ = ε[1 − 2h + (2h − h²)ε + h²ε²], h = ηλ.

    That is σ⁺ = σ(1 + h(1 − σ/λ))² in a form that keeps the digits of small ε. Monotone for
    h <= ½, of alternating sign above, stable for h < 1.

    Args:
        rate: h = ηλ > 0, a number or (...).
        start: ε_0 = 1 − ρ < 1, a number or (...).
        steps: T.

    Returns:
        (T + 1, ...), float64 for numbers.

    Reference: derivations 7.1.

    >>> balanced_descent(0.5, 0.5, 1)
    tensor([0.5000, 0.2188], dtype=torch.float64)
    """
    h, epsilon = _pair(rate, start)
    found = [epsilon]
    for _ in range(validate.integer("steps", steps, least=0)):
        e = found[-1]
        found.append(e * (1 - 2 * h + (2 * h - h * h) * e + h * h * e * e))
    return torch.stack(found)


def preconditioned_descent(rate: float | Tensor, start: float | Tensor, steps: int) -> Tensor:
    """u_t = σ_t/λ of preconditioned descent: u⁺ = (u + η(1 − u))²/u, whatever λ is.

    The preconditioned flow is E(t) = e^{−2t}E(0).

    Args:
        rate: η > 0, a number or (...).
        start: u_0 > 0, a number or (...).
        steps: T.

    Returns:
        (T + 1, ...), float64 for numbers.

    Reference: derivations 7.1.

    >>> preconditioned_descent(0.5, 0.5, 1)
    tensor([0.5000, 1.1250], dtype=torch.float64)
    """
    eta, u = _pair(rate, start)
    _positive("start", u)
    found = [u]
    for _ in range(validate.integer("steps", steps, least=0)):
        found.append((found[-1] + eta * (1 - found[-1])) ** 2 / found[-1])
    return torch.stack(found)


def lora_init(target: Tensor | Factors, A: Tensor, times: Sequence[float] | Tensor) -> Factors:
    """E(t) = AB − T of the flow from B₀ = 0 and A₀ with A₀ᵀA₀ = δI, in closed form.

    D = AᵀA − BBᵀ = δI is conserved, so [A; Bᵀ] obeys a Riccati equation. With a = UᵀA₀,
    A_p = A₀ − Ua, w = √(λ² + δ²/4), x = e^{−2wt}:
    ĝ = (1−x²)/4w + δ(1−x)²/8w², c = e^{−wt}((1+x)/2 + δ(1−x)/4w)/ĝ, β = e^{−wt}λ(1−x)/(2wĝ),
    N = I + (e^{δt}−1)/δ·A_pᵀA_p, S = (diag(x/ĝ) + aN⁻¹aᵀ)⁻¹diag(β), and
    UᵀEV = −diag(c)S, (I − P_U)EV = e^{δt/2}A_pN⁻¹aᵀS.

    A Gaussian A₀ has A₀ᵀA₀ ≈ δI with δ = ‖A₀‖²/r only; the answer is then off by the spread of its
    squared singular values, which matters the less the smaller A₀ is.

    Args:
        target: T (..., d, k) of rank r*, dense or Factors of inner dimension r*.
        A: A₀ (..., d, r), r >= r*.
        times: t > 0, T of them.

    Returns:
        Factors of E: (T, ..., d, r*) and (..., r*, k), to full relative accuracy however small.

    Raises:
        ValueError: r < r*, a zero A₀, a time that is not positive.

    Reference: derivations 7.2.
    """
    U, lam, V = _target_svd(target)
    A = validate.tensor("A", A)
    validate.same_kind(target=U, A=A)
    r = A.shape[-1]
    validate.shapes_match(
        "A must be (..., d, r) with r >= rank(T)",
        A.shape[-2] == U.shape[-2] and r >= lam.shape[-1],
        A=A.shape,
        T=(U.shape[-2], V.shape[-2], lam.shape[-1]),
    )
    delta = _positive("the squared size of A0", (A * A).sum((-2, -1))[..., None] / r)
    t = _times(times, lam)
    if not bool((t > 0).all()):
        raise ValueError("times must be > 0: at t = 0 the error is minus the target; leave 0 out")
    a, outside = U.mT @ A, linalg.residual(U, A)
    w = (lam**2 + delta**2 / 4).sqrt()
    decay = torch.exp(-w * t)
    x, rest = decay**2, -torch.expm1(-2 * w * t)
    g = rest * (1 + x) / (4 * w) + delta * rest**2 / (8 * w**2)
    c = decay * ((1 + x) / 2 + delta * rest / (4 * w)) / g
    beta = decay * lam * rest / (2 * w * g)
    # In the eigenbasis of A_pᵀA_p, and times e^{−δt}: N has the eigenvalues `spread`.
    p, W = torch.linalg.eigh(outside.mT @ outside)
    fade, grown = torch.exp(-delta * t), -torch.expm1(-delta * t) / delta
    moving = p > r * linalg.eps(p) * delta  # directions of A₀ that are not all in span(U)
    spread = fade + grown * torch.where(moving, p, 0.0)
    share = torch.where(moving, fade / torch.where(moving, spread, 1.0), 1.0)
    root = torch.where(moving, fade.sqrt() / torch.where(moving, spread, 1.0), 0.0)
    inside = a @ W
    middle = torch.diag_embed(x / g) + (inside * share[..., None, :]) @ inside.mT
    S = torch.linalg.solve(middle, torch.diag_embed(beta))
    turned = (outside @ W * root[..., None, :]) @ (inside.mT @ S)
    left = turned - U @ (c[..., None] * S)
    return Factors(left, V.mT)


def _target_svd(target: Tensor | Factors) -> linalg.SVD:
    if isinstance(target, Factors):
        target = checked("target", target)
        return linalg.truncated_svd(target, target.rank)
    dense = validate.tensor("target", target)
    found = linalg.truncated_svd(dense, min(dense.shape[-2:]))
    kept = found.S > max(dense.shape[-2:]) * linalg.eps(dense) * found.S[..., :1]
    rank = int(kept.sum(-1).max())
    return linalg.SVD(found.U[..., :rank], found.S[..., :rank], found.V[..., :rank])


def _positive(name: str, values: Tensor) -> Tensor:
    validate.tensor(name, values, least_dims=0)
    if not bool((values > 0).all()):
        raise ValueError(f"{name} must be > 0; got {values.flatten().tolist()[:8]}")
    return values


def _entries(name: str, given: float | Tensor) -> Tensor:
    """A number as a float64 tensor, or a tensor as it is."""
    if isinstance(given, (Tensor, np.ndarray)):
        return validate.tensor(name, given, least_dims=0)
    value = validate.real(name, given)
    return validate.tensor(name, torch.tensor(value, dtype=torch.float64), least_dims=0)


def _times(times: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    """(T, 1, ...) so that it broadcasts against (..., p)."""
    values = validate.numbers("times", times)
    listed = values if isinstance(values, list) else [values]
    t = torch.tensor(listed, dtype=like.dtype, device=like.device)
    return t.reshape(-1, *[1] * like.ndim)


def _pair(rate: float | Tensor, start: float | Tensor) -> tuple[Tensor, Tensor]:
    h = _positive("rate", _entries("rate", rate))
    first = _entries("start", start).to(h)
    validate.broadcastable("rate", h.shape, "start", first.shape)
    return h, first.expand(torch.broadcast_shapes(h.shape, first.shape))
