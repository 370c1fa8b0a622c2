"""Extreme eigenvalues of the local dynamics of a pair, by LAPACK or by Lanczos iteration.

The smallest is often far below the others, and iteration finds it slowly; of matrices that are
cheap to make it is the largest of the inverse, found in a few solves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.predict.tangent_map import TangentMap

# Operators on more than this many numbers are handed to Lanczos iteration instead of LAPACK, those
# with an inverse on more than the second.
DENSE_SIZE = 1000
INVERSE_SIZE = 600
# Up to this many, those whose products hold no more numbers than that are made and factored.
FACTORED_SIZE = 3200
# Matrices of all instances are made at once up to this many numbers in the largest temporary.
CHUNK = 1 << 24
# Where Lanczos iteration stops, as a share of the eigenvalue.
LANCZOS = 1e-8


class Curvature(NamedTuple):
    """The Hessian of a loss in (A, B), in two parts, both without a d×k matrix where possible.

    Args:
        gauss: (pair, (X, Y)) -> (M Bᵀ, AᵀM), M the curvature's answer to the change XB + AY.
        bend: (X, Y) -> (M Yᵀ, XᵀM) with M the full gradient at the solution; None where it is 0.
        width: numbers that `gauss` holds for one direction.
        inverse: makes (X, Y) -> (X', Y') that solves for the whole off the null space of J, or None
            where other directions are at rest; None where no such is known.
    """

    gauss: Callable[[Factors, Factors], Factors]
    bend: Callable[[Factors], Factors] | None
    width: int
    inverse: Callable[[], Callable[[Factors], Factors] | None] | None = None


def mode_extremes(tangent: TangentMap, curvature: Curvature) -> Tensor:
    """Eigenvalues of JᵀKJ + bend where J sees anything, shape (..., 3).

    The smallest, 0 where it is rounding; the smallest that is not; the largest. Of an operator
    that Lanczos iteration is used for, the second is NaN where it is not the first.
    """
    (d, r), m = tangent.A.shape[-2:], tangent.B.shape[-1]
    size, batch = r * (d + m), torch.broadcast_shapes(tangent.A.shape[:-2], tangent.B.shape[:-2])

    def split(x: Tensor) -> Factors:
        return Factors(
            x[..., : d * r].reshape(*x.shape[:-1], d, r),
            x[..., d * r :].reshape(*x.shape[:-1], r, m),
        )

    def join(pair: Factors) -> Tensor:
        return torch.cat([part.flatten(-2) for part in pair], dim=-1)

    def seen(x: Tensor) -> Tensor:
        return join(tangent.project(*split(x)))

    def apply(x: Tensor) -> Tensor:
        X, Y = split(x)
        Y = tangent.spare(Y)
        on_A, on_B = curvature.gauss(Factors(tangent.A, tangent.B), Factors(X, Y))
        if curvature.bend is not None:
            bent = curvature.bend(Factors(X @ tangent.right, tangent.left @ Y))
            on_A, on_B = on_A + bent.A @ tangent.right, on_B + tangent.left @ bent.B
        return join(Factors(on_A, tangent.spare(on_B)))

    probe = seen(torch.linspace(1, 2, size).to(tangent.A).expand(*batch, size))
    middle = (probe * apply(probe)).sum(-1) / (probe * probe).sum(-1)  # inside the spectrum

    def deflated(x: Tensor) -> Tensor:
        along = seen(x)
        return seen(apply(along)) + middle[..., None] * (x - along)

    if curvature.inverse is not None and size > INVERSE_SIZE:
        solve = curvature.inverse()
        if solve is not None:
            found = _inverted(apply, lambda x: join(solve(split(x))), size, batch, tangent.A)
            if found is not None:
                return found
    if size <= DENSE_SIZE:
        return _dense(deflated, size, batch, tangent.A, curvature.width)
    if size <= FACTORED_SIZE and curvature.width <= size:
        found = _factored(deflated, size, batch, tangent.A, curvature.width)
        if found is not None:
            return found
    return _lanczos(deflated, size, batch, tangent.A)


def _matrix(
    apply: Callable[[Tensor], Tensor], size: int, batch: torch.Size, like: Tensor, width: int
) -> Tensor:
    """The symmetric matrix of `apply`, (..., size, size)."""
    rows = max(1, CHUNK // (max(width, size) * max(1, batch.numel())))
    eye = torch.eye(size).to(like).reshape(size, *[1] * len(batch), size)
    parts = [apply(eye[i : i + rows].expand(-1, *batch, size)) for i in range(0, size, rows)]
    matrix = torch.cat(parts).movedim(0, -2)
    return (matrix + matrix.mT) / 2


def _dense(
    apply: Callable[[Tensor], Tensor], size: int, batch: torch.Size, like: Tensor, width: int
) -> Tensor:
    matrix = _matrix(apply, size, batch, like, width)
    values = torch.linalg.eigvalsh(matrix)
    moving = torch.where(values > _rounding(values[..., -1:], size), values, torch.inf)
    return _with_zero(values[..., 0], moving.amin(-1), values[..., -1], size)


def _factored(
    apply: Callable[[Tensor], Tensor], size: int, batch: torch.Size, like: Tensor, width: int
) -> Tensor | None:
    """The same where every direction moves, by a Cholesky factor; None where some are at rest."""
    matrices = _matrix(apply, size, batch, like, width).double().cpu().numpy()
    ends = []
    for index in np.ndindex(*batch):
        try:
            factor = scipy.linalg.cho_factor(matrices[index], check_finite=False)
        except np.linalg.LinAlgError:
            return None
        top = _end(scipy.sparse.linalg.aslinearoperator(matrices[index]), "LA")
        solve = functools.partial(scipy.linalg.cho_solve, factor, check_finite=False)
        inverse = scipy.sparse.linalg.LinearOperator((size, size), matvec=solve, dtype=float)
        ends.append((1 / _end(inverse, "LA"), top))
    low, high = torch.tensor(ends, dtype=torch.float64).to(like).reshape(*batch, 2).unbind(-1)
    if not bool((low > _rounding(high, size)).all()):
        return None
    return torch.stack([low, low, high], dim=-1)


def _inverted(
    apply: Callable[[Tensor], Tensor],
    solve: Callable[[Tensor], Tensor],
    size: int,
    batch: torch.Size,
    like: Tensor,
) -> Tensor | None:
    """The same by the pseudo-inverse; None where its smallest is rounding, or it is none.

    A closed form is the inverse at a stationary pair. At others, which count as a solution while
    their gradient is small, what it gives differs by as much, and the matrix itself is asked.
    """
    top = _ends(apply, "LA", size, batch, like)
    low = 1 / _ends(solve, "LA", size, batch, like)
    rounding = _rounding(top, size)
    # Off the gauge, where 1, 2, ... of v is mapped to: at a pseudo-inverse S of H, SHSv = Sv.
    probe = solve(torch.linspace(1, 2, size).to(like).expand(*batch, size))
    back = solve(apply(probe)) - probe
    off = torch.linalg.vector_norm(back, dim=-1) / torch.linalg.vector_norm(probe, dim=-1)
    # With an inverse no mode is at rest: its smallest is told from 0 by what rounding usually
    # leaves, a √size-th of the most that it can in a matrix.
    moves = low > rounding / size**0.5
    if not bool((moves & (off <= LANCZOS + rounding / low)).all()):
        return None
    return torch.stack([low, low, top], dim=-1)


def _rounding(top: Tensor, size: int) -> Tensor:
    """Eigenvalues of a matrix made of a few products are known to about 10·size·eps of the top."""
    return 10 * size * linalg.eps(top) * top


def _with_zero(low: Tensor, moving: Tensor, high: Tensor, size: int) -> Tensor:
    at_rest = low.abs() <= _rounding(high, size)
    return torch.stack([torch.where(at_rest, 0.0, low), moving, high], dim=-1)


def _lanczos(
    apply: Callable[[Tensor], Tensor], size: int, batch: torch.Size, like: Tensor
) -> Tensor:
    low, high = (_ends(apply, which, size, batch, like) for which in ("SA", "LA"))
    unknown = low.abs() <= 10 * LANCZOS * high
    low = torch.where(unknown, 0.0, low)
    return torch.stack([low, torch.where(unknown, torch.nan, low), high], dim=-1)


def _ends(
    apply: Callable[[Tensor], Tensor], which: str, size: int, batch: torch.Size, like: Tensor
) -> Tensor:
    """One end of the spectrum, (...): an instance at a time, the others of its batch at zero."""
    ends = []
    for index in np.ndindex(*batch):
        whole = like.new_zeros(*batch, size)

        def product(x: np.ndarray, index: tuple[int, ...] = index, whole: Tensor = whole) -> object:
            whole[index] = torch.from_numpy(np.ascontiguousarray(x).reshape(-1)).to(whole)
            return apply(whole)[index].double().cpu().numpy()

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=float)
        ends.append(_end(operator, which))
    return torch.tensor(ends, dtype=torch.float64).to(like).reshape(batch)


def _end(operator: scipy.sparse.linalg.LinearOperator, which: str) -> float:
    size = operator.shape[0]
    try:
        return float(
            scipy.sparse.linalg.eigsh(
                operator,
                k=1,
                ncv=min(size, 40),
                which=which,
                v0=np.linspace(1, 2, size),
                return_eigenvectors=False,
                tol=LANCZOS,
                maxiter=20 * size,
            )[0]
        )
    except scipy.sparse.linalg.ArpackNoConvergence:
        raise ArithmeticError(
            f"an extreme eigenvalue of a {size} x {size} operator was not found in {20 * size} "
            "Lanczos iterations; use a smaller problem or one with a wider spectrum"
        ) from None
