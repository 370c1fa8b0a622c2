"""Local rates at any solution, also where a residual stays: the Hessian of the loss in (A, B).

Near a stationary point a rule of the form A ← A − η∇_A P², B ← B − ηQ²∇_B(I − Π) multiplies the
distance to the set of solutions by I − ηH̃, with H̃ the Hessian between the roots of its weights:
symmetric, with the r² directions along the solutions as null space.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.methods.parametrisations import LEFT, RIGHT
from loraone_theory.problems.linear.covariance import Covariance
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import reduce_around

# Operators on more than this many numbers are handed to Lanczos iteration instead of LAPACK.
DENSE_SIZE = 1000


class Weights(NamedTuple):
    """P (r×r) and Q (r×r), symmetric positive, and whether row(B) is taken out of B's step."""

    right: Tensor
    left: Tensor
    outside: bool = False


def hessian_extremes(
    problem: LinearProblem, solution: Factors, weigh: Callable[[Factors], Weights]
) -> Tensor:
    """Smallest and largest eigenvalue of H̃ on the complement of its null space, shape (..., 2).

    H(δA, δB) = (Σ̂δE Bᵀ + Σ̂E δBᵀ, AᵀΣ̂δE + δAᵀΣ̂E) with δE = δA B + A δB, restricted to columns
    in span(V, offset, rows of B), which runs never leave.

    Args:
        problem: batch (...), with its offset; the scale s is 1.
        solution: A (..., d, r), B (..., r, k), a stationary point with full-rank factors.
        weigh: unbatched solution -> Weights of the rule.
    """
    reduction = reduce_around(problem, [(solution.A, LEFT), (solution.B, RIGHT)])
    small, at = reduction.problem, reduction.lower(solution)
    batch = torch.broadcast_shapes(small.batch_shape, at.shape[:-2])
    E = at.dense() - small.target.dense()
    M = small.covariance.apply(E).expand(*batch, *E.shape[-2:])
    A, B = (part.expand(*batch, *part.shape[-2:]) for part in at)
    ends = []
    for index in np.ndindex(*batch):
        here = Factors(A[index], B[index])
        found = _one(_instance(small.covariance, batch, index), here, M[index], weigh(here))
        if small.d < problem.d:  # Σ̂ = I: directions outside the span feel A ↦ A P BBᵀP alone
            outer = torch.linalg.eigvalsh(_sandwich(weigh(here).right, here.B @ here.B.mT))
            found = torch.stack([found[0].minimum(outer[0]), found[1].maximum(outer[-1])])
        ends.append(found)
    return torch.stack(ends).reshape(*batch, 2)


def _sandwich(P: Tensor, M: Tensor) -> Tensor:
    return P @ M @ P


def _instance(covariance: Covariance, batch: torch.Size, index: tuple[int, ...]) -> Covariance:
    """One instance of a batched covariance that is a set of vectors (not a dense one)."""
    parts: dict[str, Tensor] = {
        field.name: getattr(covariance, field.name)
        for field in dataclasses.fields(covariance)  # type: ignore[arg-type]
    }
    chosen = {name: v.expand(*batch, v.shape[-1])[index] for name, v in parts.items()}
    return dataclasses.replace(covariance, **chosen)  # type: ignore[type-var]


def _one(covariance: Covariance, at: Factors, M: Tensor, weights: Weights) -> Tensor:
    (A, B), (P, Q, outside) = at, weights
    (d, r), m = A.shape, B.shape[-1]
    V = torch.linalg.qr(B.mT).Q

    def project(Y: Tensor) -> Tensor:
        return Y - (Y @ V) @ V.mT if outside else Y

    def apply(x: Tensor) -> Tensor:
        """H̃ on the rows of x (c, dr + rm), each row A's part and then B's."""
        dA = x[:, : d * r].reshape(-1, d, r) @ P
        dB = Q @ project(x[:, d * r :].reshape(-1, r, m))
        change = covariance.apply(dA @ B + A @ dB)
        on_A = (change @ B.mT + M @ dB.mT) @ P
        on_B = project(Q @ (A.mT @ change + dA.mT @ M))
        return torch.cat([on_A.flatten(1), on_B.flatten(1)], dim=1)

    null = _null(at, weights, V)
    probe = torch.linspace(1, 2, null.shape[0]).to(A)[None]
    probe = probe - (probe @ null) @ null.mT
    middle = (probe * apply(probe)).sum() / (probe * probe).sum()  # inside the spectrum

    def deflated(x: Tensor) -> Tensor:
        return apply(x) + middle * (x @ null) @ null.mT

    if null.shape[0] <= DENSE_SIZE:
        matrix = deflated(torch.eye(null.shape[0]).to(A))
        return torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[[0, -1]]
    return _lanczos(deflated, null)


def _null(at: Factors, weights: Weights, V: Tensor) -> Tensor:
    """An orthonormal basis (dr + rm, r²) of the directions in which nothing moves.

    They are (A C P⁻¹, −Q⁻¹C B) for C (r×r), or (0, C Vᵀ) where row(B) is taken out of B's step.
    """
    (A, B), (P, Q, outside) = at, weights
    d, r = A.shape
    C = torch.eye(r * r).to(A).reshape(-1, r, r)
    if outside:
        along = (C.new_zeros(r * r, d, r), C @ V.mT)
    else:
        along = (A @ torch.linalg.solve(P, C.mT).mT, -torch.linalg.solve(Q, C) @ B)
    rows = torch.cat([part.flatten(1) for part in along], dim=1)
    return torch.linalg.qr(rows.mT).Q


def _lanczos(apply: Callable[[Tensor], Tensor], null: Tensor) -> Tensor:
    size = null.shape[0]

    def product(x: np.ndarray) -> np.ndarray:
        return (
            apply(torch.from_numpy(np.ascontiguousarray(x)).to(null).reshape(1, -1))[0]
            .cpu()
            .numpy()
        )

    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    ends = [
        scipy.sparse.linalg.eigsh(
            operator,
            k=1,
            ncv=min(size, 40),
            which=which,
            v0=np.linspace(1, 2, size),
            return_eigenvectors=False,
            tol=1e-8,
            maxiter=20 * size,
        )[0]
        for which in ("SA", "LA")
    ]
    return torch.tensor(ends).to(null)
