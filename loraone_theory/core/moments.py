"""Adam's means and steps, as pure functions and in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core.factors import Params, Scalar

Betas = tuple[float, float]


def descend(M: Tensor, step: Tensor, learning_rate: Scalar) -> Tensor:
    """M − η·step, for a number or a batch of learning rates."""
    if isinstance(learning_rate, Tensor):
        return M.addcmul(step, learning_rate, value=-1)
    return M.add(step, alpha=-learning_rate)


def decay(M: Tensor, learning_rate: Scalar, weight_decay: float) -> Tensor:
    """(1 − η·w)M, decoupled weight decay."""
    return M if weight_decay == 0 else M * (1 - learning_rate * weight_decay)


class Moments(NamedTuple):
    """Adam's running means of gradients and of their squares, entry by entry."""

    step: float | Tensor
    first: Params
    second: Params

    @classmethod
    def zero(cls, tensors: Params) -> Moments:
        """Before the first step."""
        first, second = (tuple(torch.zeros_like(t) for t in tensors) for _ in range(2))
        return cls(0, first, second)

    def after(self, gradients: Params, betas: Betas) -> Moments:
        """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²."""
        pairs = [
            (
                torch.add(m * betas[0], g, alpha=1 - betas[0]),
                torch.addcmul(v * betas[1], g, g, value=1 - betas[1]),
            )
            for g, m, v in zip(gradients, self.first, self.second, strict=True)
        ]
        return Moments(self.step + 1, tuple(m for m, _ in pairs), tuple(v for _, v in pairs))

    def directions(self, betas: Betas, eps: float, bias_correction: bool = True) -> Params:
        """m̂/(√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ), or m/(√v + ε) uncorrected."""
        one, two = (1 - b**self.step if bias_correction else 1.0 for b in betas)
        # In place on temporaries of its own only.
        return tuple(
            m / (v / two).sqrt_().add_(eps).mul_(one)
            for m, v in zip(self.first, self.second, strict=True)
        )


Adam = Callable[..., tuple[Params, Moments]]
# Where torch has a kernel that makes the whole step in one pass over the memory.
FUSED = ("cpu", "cuda")


def adam(
    params: Params,
    gradients: Params,
    state: Moments,
    rates: Sequence[Scalar],
    betas: Betas,
    eps: float,
    weight_decay: float = 0.0,
    bias_correction: bool = True,
) -> tuple[Params, Moments]:
    """P ← (1 − ηw)P − η m̂/(√v̂ + ε), each tensor with its own η."""
    state = state.after(gradients, betas)
    new = tuple(
        descend(decay(P, rate, weight_decay), D, rate)
        for P, D, rate in zip(
            params, state.directions(betas, eps, bias_correction), rates, strict=True
        )
    )
    return new, state


def adam_(
    params: Params,
    gradients: Params,
    state: Moments,
    rates: Sequence[float],
    betas: Betas,
    eps: float,
    weight_decay: float = 0.0,
    bias_correction: bool = True,
) -> tuple[Params, Moments]:
    """The same to rounding, written over `params` and the means of `state`, which are returned."""
    if not all(P.device.type in FUSED and _dense(P) for P in params):
        return adam(params, gradients, state, rates, betas, eps, weight_decay, bias_correction)
    first, second = (_like(means, params) for means in (state.first, state.second))
    step = state.step + 1
    # The kernel's corrections 1 − βᵗ are 1 at t = ∞.
    number = params[0].new_tensor(step if bias_correction else math.inf, dtype=torch.float32)
    for *each, rate in zip(params, _like(gradients, params), first, second, rates, strict=True):
        P, g, m, v = (_flat(t) for t in each)
        torch._fused_adamw_(
            [P],
            [g],
            [m],
            [v],
            [],
            [number],
            lr=rate,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )
    return params, Moments(step, first, second)


def _like(tensors: Params, params: Params) -> Params:
    """In the memory layout of the parameters, which the kernel takes for granted."""
    return tuple(
        t if t.stride() == P.stride() else torch.empty_like(P).copy_(t)
        for t, P in zip(tensors, params, strict=True)
    )


def _dense(t: Tensor) -> bool:
    return t.is_contiguous() or t.mT.is_contiguous()


def _flat(t: Tensor) -> Tensor:
    """A contiguous view of a tensor that is so itself, or whose transpose is."""
    return t if t.is_contiguous() else t.mT
