"""What a run records, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import linalg, tall
from loraone_theory.core.factors import Factors, Params
from loraone_theory.problems.base import Problem, facts, needed


class Reference(NamedTuple):
    """What alignments are measured against: frames of U_{r*}(G) and V_{r*}(G)."""

    U: Tensor  # (..., d, r*)
    V: Tensor  # (..., k, r*)


def reference(problem: Problem) -> Reference:
    """The top-r* singular frames of the one-step gradient."""
    U, _, V = linalg.truncated_svd(
        problem.one_step_gradient(), needed(problem, "true_rank", "an alignment")
    )
    return Reference(tall.layout(U), tall.layout(V))


class View:
    """One or many time points of a run, with what several records share computed once."""

    def __init__(
        self,
        problem: Problem,
        against: Reference | None,
        shift: Factors,
        sides: Factors,
        trainable: Params,
    ) -> None:
        self.problem, self.against = problem, against
        self.shift, self.sides, self.trainable = shift, sides, trainable

    @cached_property
    def residual(self) -> Tensor:
        """E = W_f + sAB − W − Δ."""
        return needed(self.problem, "residual", "this record")(self.shift)

    @cached_property
    def known(self) -> tuple[Tensor, ...]:
        """E for the losses that take it, nothing for the others."""
        return (self.residual,) if facts(self.problem).takes_residual else ()


def _loss(view: View) -> Tensor:
    """Training loss L."""
    return view.problem.loss(view.shift, *view.known)


def _risk(view: View) -> Tensor:
    """Expected loss on a fresh sample, exact: ½‖E‖_F² in the linear model."""
    return needed(view.problem, "risk", "record 'risk'")(view.shift, *view.known)


def _error(view: View) -> Tensor:
    """‖E‖_F, the distance of the learned shift from the true one."""
    return torch.linalg.matrix_norm(view.residual)


def _left_alignment(view: View) -> Tensor:
    """‖U_{r*,⊥}(G)ᵀ U_{r*}(A)‖_op; NaN where A has rank below r*."""
    assert view.against is not None
    return _alignment(view.against.U, view.sides.A)


def _right_alignment(view: View) -> Tensor:
    """‖V_{r*,⊥}(G)ᵀ V_{r*}(B)‖_op; NaN where B has rank below r*."""
    assert view.against is not None
    return _alignment(view.against.V, view.sides.B.mT)


def _alignment(P: Tensor, M: Tensor) -> Tensor:
    Q, defined = linalg.left_frame(M, P.shape[-1])
    return torch.where(defined, linalg.largest_sine(P, Q), torch.nan)


def _balance(view: View) -> Tensor:
    """‖AᵀA − BBᵀ‖_F, zero at Spectral-init."""
    A, B = view.trainable
    return torch.linalg.matrix_norm(A.mT @ A - B @ B.mT)


RECORDS: dict[str, Callable[[View], Tensor]] = {
    "loss": _loss,
    "risk": _risk,
    "error": _error,
    "left_alignment": _left_alignment,
    "right_alignment": _right_alignment,
    "balance": _balance,
}

# These compare with the gradient's subspaces, so the loop prepares a Reference for them.
ALIGNMENTS = frozenset({"left_alignment", "right_alignment"})
