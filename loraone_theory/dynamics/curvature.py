"""The largest Hessian eigenvalue, from gradients alone: no Hessian, no autograd.

Hessian-vector products are central differences of the gradient, Hv ≈ (g(θ + hv) − g(θ − hv))/2h
with h = ε^{1/3}(1 + ‖θ‖)/‖v‖: an error of relative size ε^{2/3} for a smooth loss. Lanczos
iteration with full reorthogonalisation gives the largest eigenvalue of the whole spectrum.
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

    if not batch:
        return _lanczos(gradient, theta)
    rows = max(1, BASIS_BYTES // (MOST * theta[0].numel() * theta.element_size()))
    return torch.cat([_lanczos(gradient, part) for part in theta.split(rows)])


def _lanczos(gradient: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """The largest Ritz value at `theta` (..., n), from one start for all."""
    n, eps = theta.shape[-1], linalg.eps(theta)
    step = eps ** (1 / 3) * (1 + torch.linalg.vector_norm(theta, dim=-1)[..., None])
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
