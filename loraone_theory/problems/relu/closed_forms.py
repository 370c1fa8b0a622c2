"""Closed forms of the ReLU model with Gaussian inputs, column by column.

For one column write w' for the current weight, w̃ for the target, E = w̃ − w' (target minus
current), E_⊥ for the part of E orthogonal to w', and θ for the angle between w̃ and w'. The target
itself is never formed: at small E the difference would be all rounding error. Angles come from
atan2; an arc cosine knows nothing below 2e-8 in float64 and 3.5e-4 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import elementwise

# 2n/(2n+1)! with alternating signs, n = 1, 2, …: the next term is below 2e-18 of the first.
SERIES = tuple((-1) ** (n + 1) * 2 * n / math.factorial(2 * n + 1) for n in range(1, 11))


class Columns(NamedTuple):
    """What the closed forms need to know of each column, shape (..., k) each."""

    size: Tensor  # ‖w'‖
    along: Tensor  # E·ŵ', 0 where w' = 0
    across: Tensor  # ‖E_⊥‖

    @property
    def angle(self) -> Tensor:
        """θ in [0, π]."""
        return elementwise.atan2(self.across, self.size + self.along)

    @property
    def supplement(self) -> Tensor:
        """π − θ, with full relative accuracy where w̃ points away from w'."""
        return elementwise.atan2(self.across, -(self.size + self.along))

    @property
    def target_size(self) -> Tensor:
        """‖w̃‖."""
        return elementwise.hypot(self.across, self.size + self.along)


def columns(E: Tensor, weight: Tensor) -> Columns:
    """‖w'‖, E·ŵ' and ‖E_⊥‖ of every column.

    Args:
        E: (..., d, k), target minus current.
        weight: (..., d, k), the current weight W'.
    """
    size = torch.linalg.vector_norm(weight, dim=-2)
    safe = torch.where(size > 0, size, torch.ones_like(size))
    along = (E * weight).sum(-2) / safe
    # E_⊥ is formed: ‖E‖² − along² would lose it where E is nearly parallel to w'.
    across = torch.linalg.vector_norm(E - weight * (along / safe)[..., None, :], dim=-2)
    return Columns(size, along, across)


def g(angle: Tensor) -> Tensor:
    """g(θ) = sin θ − θ cos θ, with full relative accuracy on [0, π].

    Below θ = 1, where the difference would cancel, it is the series
    θ³ Σ_{n≥1} (−1)^{n+1} 2n θ^{2n−2}/(2n+1)!.

    >>> round(float(g(torch.tensor(1e-6, dtype=torch.float64)) * 3e18), 12)
    1.0
    """
    square = angle * angle
    series = torch.full_like(angle, SERIES[-1])
    for term in reversed(SERIES[:-1]):
        series = series * square + term
    return torch.where(angle < 1, angle * square * series, angle.sin() - angle * angle.cos())


def gradient_weights(of: Columns) -> tuple[Tensor, Tensor]:
    """(s₁, s₂), each (..., k), with J = E diag(s₁) + W' diag(s₂) the negative full gradient.

    J_m = ½E_m − (θ/2π) E_⊥ + (‖w̃‖/2π) g(θ) ŵ' in these terms is s₁ = (π − θ)/2π and
    s₂ = (‖E_⊥‖/‖w'‖ − θ)/2π, because ‖w̃‖ sin θ = ‖E_⊥‖ and ‖w̃‖ cos θ = ‖w'‖ + E·ŵ'. The
    rounding error of s₂w' is that of ‖E_⊥‖, so J is accurate relative to E however small E is.
    Both are 0 where w' = 0, as the derivative of the ReLU at 0 is taken to be.
    """
    alive = of.size > 0
    safe = torch.where(alive, of.size, torch.ones_like(of.size))
    first = torch.where(alive, of.supplement, torch.zeros_like(safe)) / (2 * math.pi)
    second = (of.across / safe - of.angle) / (2 * math.pi)
    return first, torch.where(alive, second, torch.zeros_like(second))


def negative_gradient(E: Tensor, weight: Tensor) -> Tensor:
    """J = −∇_W of the population loss at W' (..., d, k); exactly 0 at E = 0.

    Args:
        E: (..., d, k), target minus current.
        weight: (..., d, k), the current weight W'.

    >>> E = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    >>> negative_gradient(E, torch.tensor([[0.0], [-1.0]], dtype=torch.float64)).mT
    tensor([[0.0000, 0.5000]], dtype=torch.float64)
    """
    first, second = gradient_weights(columns(E, weight))
    return E * first[..., None, :] + weight * second[..., None, :]


def squared_error(E: Tensor, weight: Tensor) -> Tensor:
    """E‖y − ŷ‖² = Σ_m [½‖E_m‖² − (‖w̃‖‖w'‖/π) g(θ)], shape (...).

    Between ¼‖E‖_F² and ½‖E‖_F², so nothing cancels. At w' = 0 it is ½‖w̃‖².

    Args:
        E: (..., d, k), target minus current.
        weight: (..., d, k), the current weight W'.
    """
    return squared_error_of(columns(E, weight), (E * E).sum((-2, -1)))


def squared_error_of(of: Columns, square: Tensor) -> Tensor:
    """The same from what is known of the columns, and ‖E‖_F² (...)."""
    masked = of.target_size * of.size * g(of.angle) / math.pi
    return 0.5 * square - masked.sum(-1)


def pieces(batch: torch.Size, most: int) -> Iterator[tuple[int | slice, ...]]:
    """Indices that cut a batch into pieces of at most `most` entries (at least one), in order.

    Leading axes are looped over and trailing ones kept whole while they fit, so that a piece of a
    tensor expanded to the batch is a view of it. A piece of one entry has no batch axis left.

    >>> list(pieces(torch.Size((2, 3)), 2))
    [(0, slice(0, 2, None)), (0, 2), (1, slice(0, 2, None)), (1, 2)]
    >>> list(pieces(torch.Size((2, 3)), 6))
    [()]
    """
    axis, inner = len(batch), 1
    while axis > 0 and inner * batch[axis - 1] <= most:
        axis -= 1
        inner *= batch[axis]
    if axis == 0:
        yield () if inner > 1 else (0,) * len(batch)
        return
    axis -= 1
    length = max(1, most // inner)
    for outer in np.ndindex(*batch[:axis]):
        for start in range(0, batch[axis], length):
            stop = min(start + length, batch[axis])
            yield (*outer, start if stop - start == 1 else slice(start, stop))
