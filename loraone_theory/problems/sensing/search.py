"""The search for matrices of rank r that 𝒜 lengthens most, or shortens most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal
from loraone_theory.problems.sensing.base import MeasurementOperator

# Up to this many entries of a d×k matrix 𝒜*𝒜/m is made in full; above, it is known by products,
# and a few steps of Lanczos improve on the factor at hand.
FORMED = 1 << 10
LANCZOS = 24

Shape = tuple[int, ...]  # (restarts, *batch, d, k, r)


def alternate(
    operator: MeasurementOperator,
    rng: np.random.Generator,
    shape: Shape,
    largest: bool,
    sweeps: int,
    tolerance: float,
) -> Factors:
    """Best A for orthonormal B, best B for orthonormal A, until a value moves no more.

    Every restart begins at the same place for all instances and ends when its own value has
    settled, so that what is found does not depend on what else is in the batch.
    """
    restarts, *batch, d, k, r = shape
    A, B = (_for_all(normal(rng, restarts, n, r), batch, operator.like) for n in (d, k))
    B = torch.linalg.qr(B).Q.mT
    improve = _formed(operator, largest) if d * k <= FORMED else _by_products(operator, largest)
    settling = _Settling(tolerance)
    for _ in range(sweeps):
        moved, _ = improve(Factors(A, B), True)
        Q = torch.linalg.qr(moved).Q
        other, value = improve(Factors(Q, Q.mT @ moved @ B), False)
        # The next A needs orthonormal rows of B.
        rows = torch.linalg.qr(other.mT).Q
        A, B = settling.after(value, (A, B), (Q @ (other @ rows), rows.mT))
        if settling.done:
            break
    return Factors(A, B)


def _for_all(M: np.ndarray, batch: Sequence[int], like: Tensor) -> Tensor:
    """(restarts, ·, ·) as (restarts, *batch, ·, ·), the same for every instance."""
    start = torch.from_numpy(M).to(like)
    return start.view(len(M), *[1] * len(batch), *M.shape[1:]).expand(-1, *batch, -1, -1)


class _Settling:
    """Which searches go on: those whose value still moves by more than a share of itself."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._value: Tensor | None = None
        self._going = torch.ones((), dtype=torch.bool)
        self.done = False

    def after(
        self, value: Tensor, old: tuple[Tensor, ...], new: tuple[Tensor, ...]
    ) -> list[Tensor]:
        """What each search holds after a sweep: the new tensors, or the old ones if it is over."""
        if self._value is None:
            self._value = value
            return list(new)
        going = self._going.to(value.device).expand(value.shape)
        held = [
            torch.where(going[..., None, None], after, before)
            for after, before in zip(new, old, strict=True)
        ]
        still = (value - self._value).abs() > self._tolerance * value.abs()
        self._value = torch.where(going, value, self._value)
        self._going = going & still
        self.done = not bool(self._going.any())
        return held


# (factors, whether A is to move and B, orthonormal, to stay) -> the factor that moved, of norm 1,
# and ‖𝒜(AB)‖²/m with it.
Improve = Callable[[Factors, bool], tuple[Tensor, Tensor]]


def _formed(operator: MeasurementOperator, largest: bool) -> Improve:
    """The best factor: an eigenvector of its quadratic form, made from K = 𝒜*𝒜/m."""
    d, k = operator.d, operator.k
    units = torch.eye(d * k).to(operator.like).view(d * k, *[1] * len(operator.batch_shape), d, k)
    a = operator.forward(Factors(units, torch.eye(k).to(units)))  # (dk, *batch, m)
    a = a.expand(d * k, *operator.batch_shape, operator.measurements).movedim(0, -1)
    K = (a.mT @ a / operator.measurements).view(*operator.batch_shape, d, k, d, k)

    def improve(F: Factors, left: bool) -> tuple[Tensor, Tensor]:
        moving = F.A if left else F.B
        if left:
            form = torch.einsum("...pjPJ,...qj,...QJ->...pqPQ", K, F.B, F.B)
        else:
            form = torch.einsum("...pjPJ,...pq,...PQ->...qjQJ", K, F.A, F.A)
        values, vectors = torch.linalg.eigh(form.flatten(-4, -3).flatten(-2))
        at = -1 if largest else 0
        return vectors[..., at].reshape(moving.shape), values[..., at]

    return improve


def _by_products(operator: MeasurementOperator, largest: bool) -> Improve:
    """The best factor in the Krylov space of the one at hand: at least as good as that."""

    def improve(F: Factors, left: bool) -> tuple[Tensor, Tensor]:
        start = F.A if left else F.B

        def form(M: Tensor) -> Tensor:
            moved = Factors(M, F.B) if left else Factors(F.A, M)
            pulled = operator.pull(operator.forward(moved), moved)
            return (pulled.A if left else pulled.B) / operator.measurements

        return _lanczos(form, start, largest)

    return improve


def _lanczos(form: Callable[[Tensor], Tensor], M: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """The best vector of the Krylov space of M, and its value.

    Where that space is exhausted its further columns are zero, and kept out of the choice.
    """
    Q = (M.flatten(-2) / torch.linalg.matrix_norm(M)[..., None])[..., None]
    HQ = Q[..., :0]
    steps = min(LANCZOS, Q.shape[-2])
    for _ in range(steps):
        image = form(Q[..., -1].reshape(M.shape)).flatten(-2)[..., None]
        HQ = torch.cat([HQ, image], dim=-1)
        if Q.shape[-1] == steps:
            break
        rounding = Q.shape[-2] * torch.finfo(M.dtype).eps * image.norm(dim=-2, keepdim=True)
        for _ in range(2):
            image = image - Q @ (Q.mT @ image)
        size = image.norm(dim=-2, keepdim=True)
        new = torch.where(size > rounding, image / size, torch.zeros_like(image))
        Q = torch.cat([Q, new], dim=-1)
    projected = Q.mT @ HQ
    projected = (projected + projected.mT) / 2
    worst = 2 * torch.linalg.matrix_norm(projected)[..., None] * (-1 if largest else 1)
    missing = torch.where(Q.norm(dim=-2) < 0.5, worst, torch.zeros_like(worst))
    values, vectors = torch.linalg.eigh(projected + torch.diag_embed(missing))
    at = -1 if largest else 0
    best = (Q @ vectors[..., at, None])[..., 0]
    best = best / best.norm(dim=-1, keepdim=True)
    return best.reshape(M.shape), values[..., at]


def alternate_symmetric(
    operator: MeasurementOperator,
    rng: np.random.Generator,
    shape: Shape,
    largest: bool,
    sweeps: int,
    tolerance: float,
) -> Factors:
    """Symmetric M by M ← best rank-r part of KM, or of (c − K)M with c >= ‖K‖_op, K = 𝒜*𝒜/m.

    Both forms are convex, so that replacing M by the best matrix for the linear form at M cannot
    make the value worse.
    """
    restarts, *batch, d, _, r = shape
    U = _for_all(normal(rng, restarts, d, r), batch, operator.like)
    M = _unit(U @ U.mT)

    def form(M: Tensor) -> Tensor:
        full = Factors(M, torch.eye(d).to(M))
        return operator.adjoint(operator.forward(full)) / operator.measurements

    top = M
    for _ in range(sweeps):  # power iteration for ‖K‖_op
        top = _unit(form(top))
    bound = 1.1 * (top * form(top)).sum((-2, -1), keepdim=True)
    # Steps of the linearised form are smaller than those of an exact alternation.
    settling = _Settling(tolerance / 20)
    for _ in range(20 * sweeps):
        image = form(M)
        value = (M * image).sum((-2, -1))
        (M,) = settling.after(
            value, (M,), (_truncated(image if largest else bound * M - image, r),)
        )
        if settling.done:
            break
    values, vectors = _leading(M, r)
    return Factors(vectors * values[..., None, :], vectors.mT)


def _leading(M: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` eigenpairs largest in absolute value."""
    values, vectors = torch.linalg.eigh((M + M.mT) / 2)
    order = values.abs().argsort(-1, descending=True)[..., :rank]
    return (
        torch.take_along_dim(values, order, -1),
        torch.take_along_dim(vectors, order[..., None, :], -1),
    )


def _truncated(M: Tensor, rank: int) -> Tensor:
    values, vectors = _leading(M, rank)
    return _unit((vectors * values[..., None, :]) @ vectors.mT)


def _unit(M: Tensor) -> Tensor:
    return M / torch.linalg.matrix_norm(M)[..., None, None]
