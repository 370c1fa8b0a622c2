"""What a run records: one row of `RECORDS` for each name, and `Record` for one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import linalg, powers, validate
from loraone_theory.core.shown import InTable
from loraone_theory.dynamics.curvature import largest_eigenvalue
from loraone_theory.dynamics.view import Reference, View, reference
from loraone_theory.problems.base import Problem, fact, needed

# What a record may need, and the fact of the problem that gives it ("pair": of the method).
NEEDS = {
    "reference": "true_rank",
    "residual": "residual",
    "risk": "risk",
    "shift": "shift",
    "test_loss": "test_loss",
    "pair": None,
}

# What the labelled outputs of a run have besides its records.
TAKEN = (
    "step", "steps", "seed", "problem_seed", "learning_rate", "damping", "init_std", "record",
    "index", "value",
)  # fmt: skip


@dataclass(frozen=True)
class Record(InTable):
    """A quantity measured along a run.

    Args:
        name: the key in `run[...]`.
        measure: View -> (times, *batch), or (times, *batch, m) where `axis` is given.
        invariant: its value is the same in rotated coordinates of input and output space, so that
            it may be measured on reduced tensors. Where it is not, the tensors are lifted first.
        needs: of "reference", "residual", "risk", "shift", "test_loss" and "pair". Where a problem
            does not know one, the record is NaN and `run.reasons[name]` says why; "pair" is for
            methods that train A and B.
        axis: the name of the trailing axis of a vector.
        unit: of its values, as axes and tables write it; "1" for plain numbers.
        doc: one line on what it is; by default the first line of `measure`'s docstring.

    >>> largest = Record("largest", lambda view: view.shift.dense().abs().amax((-2, -1)))
    >>> from loraone_theory.dynamics.loop import simulate
    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=8, k=6, true_rank=1, samples=40)
    >>> run = simulate(problem, "lora-one", rank=1, learning_rate=0.1, steps=3, record=[largest])
    >>> run["largest"].shape
    torch.Size([4, 1])
    """

    name: str
    measure: Callable[[View], Tensor]
    invariant: bool = False
    needs: frozenset[str] = frozenset()
    axis: str | None = None
    doc: str = ""
    unit: str = "1"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"the name of a record must be a word; got {self.name!r}")
        if self.name in TAKEN:
            raise ValueError(
                f"the name of a record must be new beside those of the axes; got {self.name!r}; "
                "give it another one"
            )
        validate.function(f"measure of record {self.name!r}", self.measure)
        validate.instance(f"unit of record {self.name!r}", self.unit, str, 'such as "rad"')
        object.__setattr__(self, "needs", frozenset(self.needs))
        for need in self.needs:
            validate.choice(f"need of record {self.name!r}", need, NEEDS)
        if not self.doc:
            first = (self.measure.__doc__ or "").strip().partition("\n")[0]
            object.__setattr__(self, "doc", first)

    def __repr__(self) -> str:
        told = {"axis": self.axis, "unit": None if self.unit == "1" else self.unit}
        inside = [f"{name}={value!r}" for name, value in told.items() if value is not None]
        return f"Record({', '.join([repr(self.name), *inside])})"

    def _told(self) -> dict[str, Any]:
        known = {"name": self.name, "doc": self.doc, "invariant": self.invariant, "unit": self.unit}
        return {**known, "needs": ", ".join(sorted(self.needs)), "axis": self.axis}

    def missing(self, problem: Problem) -> str | None:
        """Why it cannot be measured on a problem, or None."""
        for need in sorted(self.needs):
            name = NEEDS[need]
            if name is not None and fact(problem, name) is None:
                return f"needs {name!r}, which this {type(problem).__name__} does not know"
        return None


def _loss(view: View) -> Tensor:
    """Training loss L."""
    return view.loss


def _risk(view: View) -> Tensor:
    """Expected loss on a fresh sample, exact: ½‖E‖_F² for isotropic inputs in the linear model."""
    return needed(view.problem, "risk", "record 'risk'")(view.shift, *view.known)


def _error(view: View) -> Tensor:
    """‖E‖_F, the distance of the learned shift from the true one."""
    return torch.linalg.matrix_norm(view.residual)


def _left_alignment(view: View) -> Tensor:
    """‖U_{r*,⊥}(G)ᵀ U_{r*}(A)‖_op; NaN where A has rank below r*."""
    return _alignment(view.reference.U, view.sides.A)


def _right_alignment(view: View) -> Tensor:
    """‖V_{r*,⊥}(G)ᵀ V_{r*}(B)‖_op; NaN where B has rank below r*."""
    return _alignment(view.reference.V, view.sides.B.mT)


def _alignment(P: Tensor, M: Tensor) -> Tensor:
    Q, defined = linalg.left_frame(M, P.shape[-1])
    return torch.where(defined, linalg.largest_sine(_each(P, Q), Q), torch.nan)


def _left_angles(view: View) -> Tensor:
    """All r* principal angles between U_{r*}(G) and U_{r*}(A), descending."""
    return _angles(view.reference.U, view.sides.A)


def _right_angles(view: View) -> Tensor:
    """All r* principal angles between V_{r*}(G) and V_{r*}(B), descending."""
    return _angles(view.reference.V, view.sides.B.mT)


def _angles(P: Tensor, M: Tensor) -> Tensor:
    Q, defined = linalg.left_frame(M, P.shape[-1])
    return torch.where(defined[..., None], linalg.principal_angles(_each(P, Q), Q), torch.nan)


def _each(P: Tensor, Q: Tensor) -> Tensor:
    """P for every matrix of Q: one product for all of them would round by how many there are."""
    return P.expand(*Q.shape[:-2], *P.shape[-2:])


def _balance(view: View) -> Tensor:
    """‖AᵀA − BBᵀ‖_F, zero at Spectral-init."""
    A, B = view.trainable
    return torch.linalg.matrix_norm(A.mT @ A - B @ B.mT)


def _singular_values(view: View) -> Tensor:
    """Singular values of the learned shift sAB − offset, descending."""
    return view.singular_values


def _nuclear_norm(view: View) -> Tensor:
    """Sum of the singular values of the learned shift."""
    return view.singular_values.sum(-1)


def _stable_rank(view: View) -> Tensor:
    """‖M‖_F²/‖M‖_op² of the learned shift M; NaN where M = 0 to rounding of sAB − offset."""
    squares = view.singular_values.square()
    ratio = squares.sum(-1) / squares[..., 0]
    if view.offset is None:
        return ratio
    A, B = view.learned
    sizes = [
        torch.linalg.matrix_norm(pair.A) * torch.linalg.matrix_norm(pair.B)
        for pair in (view.shift, view.offset)
    ]
    rounding = max(A.shape[-2], B.shape[-1]) * linalg.eps(A) * (sizes[0] + sizes[1])
    return torch.where(view.singular_values[..., 0] <= rounding, torch.nan, ratio)


def _gradient_norm(view: View) -> Tensor:
    """Euclidean norm of the gradient of L in all trained entries."""
    plain, kind = _sum_of_squares(view.gradients), torch.finfo(view.gradients[0].dtype)
    ordinary = (plain > kind.tiny / kind.eps**2) & (plain < math.inf)
    if bool(ordinary.all()):
        return plain.sqrt()
    sizes = [torch.linalg.vector_norm(g, math.inf, (-2, -1)) for g in view.gradients]
    power = powers.exponent(torch.stack(torch.broadcast_tensors(*sizes)).amax(0))
    scaled = [powers.times(g, -power[..., None, None]) for g in view.gradients]
    return torch.where(ordinary, plain.sqrt(), powers.times(_sum_of_squares(scaled).sqrt(), power))


def _sum_of_squares(parts: Sequence[Tensor]) -> Tensor:
    squares = [M.square().flatten(-2).sum(-1) for M in parts]
    return torch.stack(torch.broadcast_tensors(*squares)).sum(0)


def _sharpness(view: View) -> Tensor:
    """Largest eigenvalue of the Hessian of L in all trained entries."""
    return largest_eigenvalue(view.gradients_at, view.trainable)


def _test_loss(view: View) -> Tensor:
    """Loss on the held-out rows."""
    return needed(view.problem, "test_loss", "record 'test_loss'")(view.shift)


def _row(
    name: str,
    measure: Callable[[View], Tensor],
    *needs: str,
    invariant: bool = True,
    axis: str | None = None,
    unit: str = "1",
) -> Record:
    return Record(name, measure, invariant, frozenset(needs), axis, unit=unit)


_ROWS = (
    _row("loss", _loss),
    _row("risk", _risk, "risk"),
    _row("error", _error, "residual"),
    _row("left_alignment", _left_alignment, "reference"),
    _row("right_alignment", _right_alignment, "reference"),
    _row("left_angles", _left_angles, "reference", axis="angle", unit="rad"),
    _row("right_angles", _right_angles, "reference", axis="angle", unit="rad"),
    _row("balance", _balance, "pair"),
    _row("singular_values", _singular_values, axis="value"),
    _row("nuclear_norm", _nuclear_norm),
    _row("stable_rank", _stable_rank),
    _row("gradient_norm", _gradient_norm),
    # The Hessian has directions that the reduced coordinates leave out.
    _row("sharpness", _sharpness, invariant=False),
    _row("test_loss", _test_loss, "test_loss", invariant=False),
)

# Name -> what `simulate(record=...)` measures under it.
RECORDS: dict[str, Record] = {row.name: row for row in _ROWS}

# These compare with the gradient's subspaces.
ALIGNMENTS = frozenset(name for name, row in RECORDS.items() if "reference" in row.needs)

__all__ = ["ALIGNMENTS", "NEEDS", "RECORDS", "Record", "Reference", "View", "reference"]
