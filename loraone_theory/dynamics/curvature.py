"""The largest Hessian eigenvalue, from gradients alone: no Hessian, no autograd.

Hessian-vector products are central differences of the gradient, Hv ≈ (g(θ + hv) − g(θ − hv))/2h
with h = ε^{1/3}s/‖v‖: an error of relative size ε^{2/3} for a smooth loss, where s is the size of
what the gradient is made of. Of several factors that is ‖θ‖: third differences are of order s²
beside the products of the factors, and rounding is ε of terms that the Hessian has as well. Of one
tensor it is also the distance that a Newton step goes, for the learned shift may be far smaller
than the residual. Lanczos iteration with full reorthogonalisation gives the largest eigenvalue of
the whole spectrum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Params
from loraone_theory.core.randomness import generator, normal

# Lanczos steps at most; each costs two gradients.
MOST = 60
# Estimates of the step's scale at most, of two gradients each.
ESTIMATES = 6
# The basis of a group of time points may take this much.
BASIS_BYTES = 1 << 26


def largest_eigenvalue(gradients: Callable[[Params], Params], params: Params) -> Tensor:
    """λ_max of the Hessian of a loss, for a batch of parameters at once.

    Args:
        gradients: parameters -> their gradients, of the same shapes.
        params: tensors (..., a, b) with common leading dimensions.

    Returns:
        (...), to a relative ε^{2/3}, or until `MOST` steps.
    """
    batch = torch.broadcast_shapes(*(p.shape[:-2] for p in params))
    shapes = [p.shape[-2:] for p in params]
    theta = torch.cat([p.expand(*batch, *p.shape[-2:]).flatten(-2) for p in params], -1)

    def gradient(point: Tensor) -> Tensor:
        pieces = point.split([a * b for a, b in shapes], -1)
        found = gradients(tuple(x.unflatten(-1, s) for x, s in zip(pieces, shapes, strict=True)))
        whole = [g.expand(*point.shape[:-1], *g.shape[-2:]).flatten(-2) for g in found]
        return torch.cat(whole, -1)

    def largest(point: Tensor) -> Tensor:
        scale = _scale_of_one(gradient, point) if len(params) == 1 else _scale(point)
        return _lanczos(gradient, point, linalg.eps(point) ** (1 / 3) * scale)

    if not batch:
        return largest(theta)
    rows = max(1, BASIS_BYTES // (MOST * theta[0].numel() * theta.element_size()))
    return torch.cat([largest(part) for part in theta.split(rows)])


def _scale(theta: Tensor) -> Tensor:
    """‖θ‖ (..., 1); where θ = 0 the gradient of a product is zero, and any small step will do."""
    size = torch.linalg.vector_norm(theta, dim=-1, keepdim=True)
    return torch.where(size == 0, torch.finfo(theta.dtype).tiny ** 0.25, size)


def _scale_of_one(gradient: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """max(‖θ‖, ‖g‖/‖Hu‖) with u = g/‖g‖, (..., 1).

    Where a step is too short for its difference, rounding takes the place of Hu, of which ‖g‖/ε
    over the step is more than what there is: the estimate grows until differences stand out.
    """
    eps, g = linalg.eps(theta), gradient(theta)
    least = torch.linalg.vector_norm(theta, dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(g, dim=-1, keepdim=True)
    u = g / torch.where(length > 0, length, 1.0)
    scale = torch.where(least > 0, least, 1.0)
    settled = ~(length > 0)
    for _ in range(ESTIMATES):
        step = eps ** (1 / 3) * scale
        change = torch.linalg.vector_norm(
            gradient(theta + step * u) - gradient(theta - step * u), dim=-1, keepdim=True
        )
        found = 2 * step * length / torch.maximum(change, eps * length)
        found = torch.where(settled, scale, torch.maximum(found, least))
        settled = settled | ((found <= 2 * scale) & (scale <= 2 * found)) | ~torch.isfinite(found)
        scale = found
        if bool(settled.all()):
            break
    return scale


def _lanczos(gradient: Callable[[Tensor], Tensor], theta: Tensor, step: Tensor) -> Tensor:
    """The largest Ritz value at `theta` (..., n), from one start for all."""
    n, eps = theta.shape[-1], linalg.eps(theta)
    start = torch.from_numpy(normal(generator(0, "sharpness"), n)).to(theta)
    basis = [(start / torch.linalg.vector_norm(start)).expand_as(theta)]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    top = theta.new_zeros(theta.shape[:-1])
    settled = torch.zeros_like(top, dtype=torch.bool)
    for count in range(1, min(n, MOST) + 1):
        v = basis[-1]
        w = (gradient(theta + step * v) - gradient(theta - step * v)) / (2 * step)
        diagonal.append((w * v).sum(-1))
        V = torch.stack(basis, -2)
        for _ in range(2):
            w = w - ((V @ w[..., None]).mT @ V)[..., 0, :]
        size = torch.linalg.vector_norm(w, dim=-1)
        values, last = _ritz(diagonal, beside)
        top = torch.where(settled, top, values[..., -1])
        scale = values.abs().amax(-1)
        settled = settled | ~(size * last.abs() > eps ** (2 / 3) * scale)
        if count == n or bool(settled.all()):
            break
        # A space that is exhausted has settled: what follows it does not matter.
        small = size <= n * eps * scale
        unit = w / torch.where(small, 1.0, size)[..., None]
        basis.append(torch.where(small[..., None], 0.0, unit))
        beside.append(torch.where(small, 0.0, size))
    return top


def _ritz(diagonal: list[Tensor], beside: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the tridiagonal matrix, ascending, and the top vector's last entry."""
    T = torch.diag_embed(torch.stack(diagonal, -1))
    if beside:
        off = torch.stack(beside, -1)
        T = T + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(torch.where(torch.isfinite(T), T, 0.0))
    return values, vectors[..., -1, -1]
