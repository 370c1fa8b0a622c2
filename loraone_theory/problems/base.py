"""What every fitting problem offers to initialisations, rules, records and the loop."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors

P = TypeVar("P", bound="Problem")


class Problem(Protocol):
    """A loss over weights W + (learned shift), with the learned shift handed in as Factors.

    Tensors carry leading batch dimensions that broadcast against `batch_shape`.
    """

    @property
    def d(self) -> int:
        """Input width."""

    @property
    def k(self) -> int:
        """Output width."""

    @property
    def true_rank(self) -> int:
        """r*, the rank of the downstream shift Δ."""

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""

    @property
    def spectral_gamma(self) -> float:
        """γ of Spectral-init: 1 in the linear model, 2 in the ReLU one."""

    @property
    def pretrained(self) -> Tensor | None:
        """W (..., d, k), where known."""

    def loss(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """The training loss L at W_f + AB, shape (...); E is its residual where known."""

    def risk(self, shift: Factors, E: Tensor | None = None) -> Tensor:
        """The expected loss ½ E‖y − ŷ‖² at W_f + AB, exact, shape (...)."""

    def residual(self, shift: Factors) -> Tensor:
        """E = W_f + AB − W − Δ, learned minus true shift, shape (..., d, k)."""

    def gradients(self, shift: Factors) -> Factors:
        """(∇_A L, ∇_B L)."""

    def one_step_gradient(self) -> Tensor | Factors:
        """G = −∇_W L at the pre-trained weight W, dense (..., d, k) or as Factors."""

    def with_offset(self: P, offset: Factors) -> P:
        """The same problem with frozen part W_f = W − offset."""
