"""Exact reduction of the linear problem: the same dynamics in fewer coordinates (derivations 3.2).

Replacing (X, Δ, A, B) by (XO₁, O₁ᵀΔO₂, O₁ᵀA, BO₂) with orthogonal O₁, O₂ rotates the trajectory
of every rotation-equivariant rule. On the left, O₁ is the eigenbasis of Σ̂, so that Σ̂ becomes
diagonal; where Σ̂ = I any basis will do, and one that starts with span(U, A₀, offset) leaves
everything outside it at rest, so it is cut off. On the right, one that starts with
span(V, rows of B₀, offset) is cut likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.shown import Shown
from loraone_theory.problems.linear.covariance import Covariance, Dense, Diagonal, Identity
from loraone_theory.problems.linear.problem import LinearProblem

# For the rows and the columns of a tensor: the space whose rotation turns them, or None.
Space = Literal["input", "output"] | None
Axes = tuple[Space, Space]


@dataclass(frozen=True, repr=False)
class Reduction(Shown):
    """A reduced problem, its initial factors, and the way back.

    Args:
        problem: the reduced LinearProblem.
        initial: the initial factors in reduced coordinates.
        left: orthonormal Q (..., d, d') with A = Q A', or None where rows were not rotated.
        right: orthonormal Q (..., k, m) with B = B' Qᵀ, or None where columns were not rotated.
    """

    problem: LinearProblem
    initial: Factors | None
    left: Tensor | None
    right: Tensor | None

    def lift(self, factors: Factors) -> Factors:
        """Reduced factors (d', r), (r, m) in the original coordinates: (d, r), (r, k)."""
        return Factors(
            self.lift_tensor(factors.A, ("input", None)),
            self.lift_tensor(factors.B, (None, "output")),
        )

    def lift_tensor(self, M: Tensor, axes: Axes) -> Tensor:
        """One reduced tensor in the original coordinates."""
        if axes[0] == "input" and self.left is not None:
            M = self.left @ M
        if axes[1] == "output" and self.right is not None:
            M = M @ self.right.mT
        return M

    def lower_tensor(self, M: Tensor, axes: Axes) -> Tensor:
        """One tensor in reduced coordinates."""
        if axes[0] == "input" and self.left is not None:
            M = self.left.mT @ M
        if axes[1] == "output" and self.right is not None:
            M = M @ self.right
        return M

    def lower(self, factors: Factors) -> Factors:
        """Factors in reduced coordinates."""
        return Factors(
            self.lower_tensor(factors.A, ("input", None)),
            self.lower_tensor(factors.B, (None, "output")),
        )


def reduce(problem: LinearProblem, initial: Factors | None = None) -> Reduction:
    """The same dynamics in fewer coordinates, exactly.

    The reduced problem has a diagonal (population: identity; exact-law: tridiagonal) covariance
    and k' = dim span(V, rows of B₀, offset), which is r* for LoRA-init and Spectral-init. For
    the population problem d' = dim span(U, A₀, offset). Instances of one batch share these
    widths. Reference: derivations 3.1, 3.2.

    Args:
        problem: a linear problem, with its offset if the method has one.
        initial: A₀ (..., d, r) and B₀ (..., r, k); None stands for zero factors.

    Returns:
        A Reduction; `lift` takes factors back to the original coordinates.

    Raises:
        TypeError: the problem is not linear.
        ValueError: factors that do not fit the problem.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=30, k=20, true_rank=2, samples=100)
    >>> small = reduce(problem).problem
    >>> small.d, small.k, type(small.covariance).__name__
    (30, 2, 'Diagonal')
    """
    if type(problem) is not LinearProblem:
        raise TypeError(
            "only the linear problem can be reduced exactly; "
            f"got {type(problem).__name__}; simulate it with reduce='never'"
        )
    tensors: list[tuple[Tensor, Axes]] = []
    if initial is not None:
        initial = checked(
            "initial",
            initial,
            d=problem.d,
            k=problem.k,
            like=problem.like,
            batch=problem.batch_shape,
        )
        tensors = [(initial.A, ("input", None)), (initial.B, (None, "output"))]
    reduction = reduce_around(problem, tensors)
    return reduction if initial is None else replace(reduction, initial=reduction.lower(initial))


def reduce_around(
    problem: LinearProblem, tensors: Sequence[tuple[Tensor, Axes]], *, minibatches: bool = False
) -> Reduction:
    """Reduce so that the given tensors, and all that the dynamics make of them, are represented.

    With `minibatches` every step has a covariance of its own, so only the columns are reduced.
    Noise fills the columns (derivations of sensing 1.3): they are cut where k > d at most.
    """
    left, covariance, noise = None, problem.covariance, problem.noise
    if not minibatches:
        left, covariance, noise = _left_basis(problem, tensors)
    right = _right_basis(problem, tensors, minibatches)
    rotate = Reduction(problem, None, left, right)
    small = LinearProblem(
        covariance,
        rotate.lower(problem.shift),
        offset=None if problem.offset is None else rotate.lower(problem.offset),
        samples=problem.samples,
        matrix_free=problem.matrix_free,
        seeds=problem.seeds,
        inputs=problem.inputs if minibatches else None,
        input_law=problem.input_law if minibatches else None,
        noise=None if noise is None else rotate.lower_tensor(noise, (None, "output")),
        constant=problem.constant,
        row_noise=problem.row_noise if minibatches else None,
        noise_std=problem.noise_std,
        population_covariance=_rotated_law(problem.population_covariance, left),
    )
    return Reduction(small, None, left, right)


def _left_basis(
    problem: LinearProblem, tensors: Sequence[tuple[Tensor, Axes]]
) -> tuple[Tensor | None, Covariance, Tensor | None]:
    """The rotation of the rows, Σ̂ in it, and Z̃ in the coordinates of its factor."""
    covariance, noise = problem.covariance, problem.noise
    if isinstance(covariance, Dense) and noise is not None and covariance.root is not None:
        return _rotated_factor(covariance.root, noise)
    if isinstance(covariance, Dense):
        values, Q = torch.linalg.eigh(covariance.matrix)
        return Q, Diagonal(values), None
    if not isinstance(covariance, Identity):
        return None, covariance, noise
    columns = [M for M, axes in tensors if axes[0] == "input"]
    if problem.offset is not None:
        columns.append(problem.offset.A)
    Q = _span(problem.shift.A, columns)
    if Q.shape[-1] >= problem.d:
        return None, covariance, None
    return Q, Identity(covariance.like[: Q.shape[-1]]), None


def _rotated_law(law: Covariance | None, Q: Tensor | None) -> Covariance | None:
    """QᵀΣQ."""
    return law if law is None or Q is None else Dense(Q.mT @ law.apply(Q))


def _rotated_factor(C: Tensor, noise: Tensor) -> tuple[Tensor, Diagonal, Tensor]:
    """C = P S Qᵀ: in the basis Q the factor is S and the noise PᵀZ̃, with zeros up to d rows."""
    h, d = C.shape[-2:]
    P, S, Qh = torch.linalg.svd(C)
    values = torch.nn.functional.pad(S * S, (0, d - h))
    return Qh.mT, Diagonal(values), torch.nn.functional.pad(P.mT @ noise, (0, 0, 0, d - h))


def _right_basis(
    problem: LinearProblem, tensors: Sequence[tuple[Tensor, Axes]], minibatches: bool
) -> Tensor | None:
    if minibatches and (problem.row_noise is not None or problem.noise_std > 0):
        return None
    rows = [M.mT for M, axes in tensors if axes[1] == "output"]
    if problem.offset is not None:
        rows.append(problem.offset.B.mT)
    if problem.noise is not None:
        rows.append(problem.noise.mT)
        if sum(M.shape[-1] for M in rows) + problem.true_rank >= problem.k:
            return None
    Q = _span(problem.shift.B.mT, rows)
    return None if Q.shape[-1] >= problem.k else Q


def _span(start: Tensor, others: Sequence[Tensor]) -> Tensor:
    Q = torch.linalg.qr(start).Q
    for M in others:
        if Q.shape[-1] >= Q.shape[-2]:
            break
        Q = linalg.append_directions(Q, M)
    return Q
