"""Rows of a linear problem that come one batch at a time: minibatches, fresh and held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems import rows
from loraone_theory.problems.linear.covariance import Rows
from loraone_theory.problems.linear.laws import LAWS, coloured


class RowStreams:
    """What `LinearProblem` makes of its rows X, and of what its labels hold beyond XΔ."""

    def batch(self: Any, indices: Tensor) -> Any:
        """The problem of the training rows `indices` (..., b), which broadcast to the runs.

        Raises:
            ValueError: X was not kept.
        """
        if self.inputs is None:
            raise ValueError(
                "minibatches need the rows of X, and this problem kept only their covariance; make "
                "it with from_data(..., keep=True) or sample_linear(..., keep_inputs=True)"
            )
        X, Z = self.inputs, self.row_noise
        miss = None if Z is None else rows.take(Z, indices, Z.ndim - 2)
        return self._on(rows.take(X, indices, X.ndim - 2), miss)

    @property
    def has_rows(self: Any) -> bool:
        """Whether X was kept."""
        return self.inputs is not None

    @property
    def fresh(self: Any) -> rows.Fresh | None:
        """(step, size, seeds) -> the problem of fresh rows, where their law is known."""
        return self._fresh if self.input_law in LAWS else None

    @property
    def test_loss(self: Any) -> Callable[[Factors], Tensor] | None:
        """Factors -> the loss on the held-out rows (...), where there are any."""
        return None if self.held_out is None else self.held_out.loss

    def _fresh(self: Any, step: int, size: int, seeds: Sequence[int]) -> Any:
        law = LAWS[self.input_law]
        X = per_seed(lambda g: law(g, size, self.d), seeds, f"fresh/{step}", self.like)
        X = coloured(X, self.population_covariance)
        if self.noise_std == 0:
            return self._on(X, None)
        Z = per_seed(lambda g: normal(g, size, self.k), seeds, f"fresh noise/{step}", self.like)
        return self._on(X, self.noise_std * Z)

    def _on(self: Any, X: Tensor, Z: Tensor | None) -> Any:
        """The problem of rows X whose labels are X(W + Δ) + Z."""
        only: dict[str, Any] = {
            "samples": X.shape[-2],
            "inputs": None,
            "row_noise": None,
            "constant": None,
            "held_out": None,
            "recipe": None,
        }
        noise = None if Z is None else Z / X.shape[-2] ** 0.5
        return replace(self, covariance=Rows(X), noise=noise, **only)
