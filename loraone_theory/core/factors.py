"""The one value that everything else passes around: a low-rank matrix held as its two factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.arrays import broadcast

# The trainable (or frozen) tensors of a parametrisation.
Params = tuple[Tensor, ...]
# A number, or a tensor (*batch, 1, 1) that broadcasts against matrices.
Scalar = float | Tensor


class Factors(NamedTuple):
    """A low-rank matrix A @ B; gradients with respect to (A, B) have the same form.

    Args:
        A: (..., d, r).
        B: (..., r, k).

    >>> f = Factors(torch.ones(3, 1), torch.ones(1, 2))
    >>> f.dense()
    tensor([[1., 1.],
            [1., 1.],
            [1., 1.]])
    """

    A: Tensor  # (..., d, r)
    B: Tensor  # (..., r, k)

    def __repr__(self) -> str:
        kind = str(self.A.dtype).removeprefix("torch.")
        return f"Factors(A={tuple(self.A.shape)}, B={tuple(self.B.shape)}, {kind})"

    def dense(self) -> Tensor:
        """A @ B, shape (..., d, k)."""
        return self.A @ self.B

    @property
    def rank(self) -> int:
        """Number of columns of A: an upper bound on the rank of A @ B."""
        return self.A.shape[-1]

    @property
    def shape(self) -> torch.Size:
        """Shape (..., d, k) of the product, without forming it."""
        batch = broadcast(self.A.shape[:-2], self.B.shape[:-2])
        return torch.Size((*batch, self.A.shape[-2], self.B.shape[-1]))


def checked(
    name: str,
    given: Any,
    *,
    d: int | None = None,
    k: int | None = None,
    rank: int | None = None,
    like: Tensor | None = None,
    batch: Sequence[int] | None = None,
    owned: bool = False,
) -> Factors:
    """Factors as a caller gives them, finite and of shapes that fit.

    Args:
        name: of the argument.
        given: A (..., d, r) and B (..., r, k), tensors or numpy arrays.
        d, k, rank: sizes that they must have, where these are known.
        like: a tensor of the problem's dtype and device, which they must share.
        batch: the problem's batch dimensions, which theirs must broadcast with.
        owned: answer with copies, so that later changes to `given` are seen nowhere.

    Raises:
        TypeError, ValueError: anything else.
    """
    validate.instance(name, given, Factors, "make it with lt.Factors(A, B), or pass run.final")
    A = validate.tensor(f"{name}.A", given.A, owned=owned)
    B = validate.tensor(f"{name}.B", given.B, owned=owned)
    problem = {} if like is None else {"problem": like}
    validate.same_kind(**problem, **{f"{name}.A": A, f"{name}.B": B})
    wanted = [sign if n is None else n for sign, n in (("d", d), ("r", rank), ("k", k))]
    sizes = zip((d, rank, k), (A.shape[-2], A.shape[-1], B.shape[-1]), strict=True)
    fits = all(size in (None, there) for size, there in sizes)
    validate.shapes_match(
        f"{name} must be A (..., {wanted[0]}, {wanted[1]}) and B (..., {wanted[1]}, {wanted[2]})",
        A.shape[-1] == B.shape[-2] and fits,
        A=A.shape,
        B=B.shape,
    )
    validate.broadcastable(f"{name}.A", A.shape[:-2], f"{name}.B", B.shape[:-2])
    found = Factors(A, B)
    if batch is not None:
        validate.broadcastable(name, found.shape[:-2], "the problem", batch)
    return found


def concatenate(first: Factors, second: Factors) -> Factors:
    """The sum A₁B₁ + A₂B₂ as Factors([A₁ A₂], [B₁; B₂]), of rank r₁ + r₂.

    Batch dimensions broadcast.
    """
    batch = broadcast(first.shape[:-2], second.shape[:-2])

    def widen(M: Tensor) -> Tensor:
        return M.expand(*batch, *M.shape[-2:])

    return Factors(
        torch.cat([widen(first.A), widen(second.A)], dim=-1),
        torch.cat([widen(first.B), widen(second.B)], dim=-2),
    )


def squared_norm(E: Factors) -> Tensor:
    """‖AB‖_F², shape (...), without a d×k matrix unless that is smaller.

    With A = QR it is ‖RB‖_F²: of a difference [A T]·[B; −C] as accurate as the difference itself.

    >>> float(squared_norm(Factors(torch.ones(2, 1), torch.ones(1, 3))))
    6.0
    """
    d, k = E.shape[-2:]
    if 4 * E.rank > min(d, k):
        M = E.dense()
        return (M * M).sum((-2, -1))
    C = torch.linalg.qr(E.A, mode="r").R @ E.B
    return (C * C).sum((-2, -1))
