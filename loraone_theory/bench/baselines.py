"""What the library is compared with: the loops one would write first, over X, W and Y."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instance:
    """One instance of the linear experiment as plain matrices, W = 0."""

    X: Tensor  # (N, d)
    W: Tensor  # (d, k)
    target: Tensor  # (d, k), W + Δ
    Y: Tensor  # (N, k)
    true_rank: int


def sample(d: int, k: int, true_rank: int, samples: int, dtype: torch.dtype) -> Instance:
    """Gaussian X and a shift with unit spectrum."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    U, V = (torch.linalg.qr(normal(n, true_rank)).Q for n in (d, k))
    X, W = normal(samples, d), torch.zeros(d, k, dtype=dtype)
    target = W + U @ V.T
    return Instance(X, W, target, X @ target, true_rank)


def start(instance: Instance, rank: int, std: float) -> tuple[Tensor, Tensor]:
    """LoRA-init."""
    d, k = instance.W.shape
    g = torch.Generator().manual_seed(1)
    A = std * torch.randn(d, rank, generator=g, dtype=torch.float64)
    return A.to(instance.X), torch.zeros(rank, k).to(instance.X)


def plain_loop(
    instance: Instance, A: Tensor, B: Tensor, eta: float, steps: int, *, recorded: bool
) -> list[tuple[float, float, float]]:
    """Eq. 4 over X, W and Y; with `recorded`, loss, risk and alignment (full SVDs) every step."""
    X, W, Y, N = instance.X, instance.W, instance.Y, len(instance.X)
    p = instance.true_rank
    G = X.T @ (Y - X @ W) / N
    off_U = torch.linalg.svd(G).U[:, p:]
    log = []
    for _ in range(steps):
        misfit = X @ (W + A @ B) - Y
        if recorded:
            loss = 0.5 * misfit.square().sum() / N
            risk = 0.5 * (W + A @ B - instance.target).square().sum()
            leading = torch.linalg.svd(A).U[:, :p]
            sine = torch.linalg.matrix_norm(off_U.T @ leading, 2)
            log.append((loss.item(), risk.item(), sine.item()))
        gradient = X.T @ misfit / N
        A, B = A - eta * gradient @ B.T, B - eta * A.T @ gradient
    return log


def autograd_loop(instance: Instance, A: Tensor, B: Tensor, eta: float, steps: int) -> list[float]:
    """The same dynamics by torch autograd and torch.optim.SGD, with the loss of every step."""
    X, W, Y, N = instance.X, instance.W, instance.Y, len(instance.X)
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    optimiser = torch.optim.SGD([A, B], lr=eta)
    log = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = 0.5 * (X @ (W + A @ B) - Y).square().sum() / N
        loss.backward()
        optimiser.step()
        log.append(loss.item())
    return log


def relu_autograd_loop(
    X: Tensor,
    W: Tensor,
    Y: Tensor,
    A: Tensor,
    B: Tensor,
    eta: float,
    steps: int,
    *,
    XW: Tensor | None = None,
) -> Tensor:
    """The ReLU model by torch autograd and torch.optim.SGD, the losses read at the end.

    Tuned is one that has XW, made beforehand, and never forms X(W + AB) whole.
    """
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    optimiser = torch.optim.SGD([A, B], lr=eta)
    log = []
    for _ in range(steps):
        optimiser.zero_grad()
        Z = X @ (W + A @ B) if XW is None else XW + (X @ A) @ B
        loss = 0.5 * (torch.relu(Z) - Y).square().sum() / len(X)
        loss.backward()
        optimiser.step()
        log.append(loss.detach())
    return torch.stack(log).cpu()
