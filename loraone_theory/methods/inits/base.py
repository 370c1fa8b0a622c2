"""What an initialisation is, and what data-driven ones share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.linalg import SVD, SVDOptions
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem, fact

# (problem, rank, seeds) -> Start. Deterministic ones have the problem's batch shape, random ones
# have a trailing batch axis of len(seeds).
Init = Callable[[Problem, int, tuple[int, ...]], Start]


def split(svd: SVD, root: Tensor) -> tuple[Tensor, Tensor]:
    """U diag(root) and diag(root) Vᵀ; `root` (..., p)."""
    return svd.U * root[..., None, :], root[..., None] * svd.V.mT


def signed(svd: SVD) -> SVD:
    """The same triplets with the largest entry of each column of U positive."""
    largest = torch.take_along_dim(svd.U, svd.U.abs().argmax(-2, keepdim=True), -2)
    signs = torch.where(largest < 0, -1.0, 1.0).to(svd.U)
    return SVD(svd.U * signs, svd.S, svd.V * signs)


def gradient_svd(problem: Problem, rank: int, options: SVDOptions) -> SVD:
    """The leading `rank` triplets of G = −∇_W L at W, with signs that do not depend on the library.

    The largest entry of each column of U is positive. Where A and B take different triplets, as in
    LoRA-GA, the sign of A₀B₀ hangs on that choice.

    Raises:
        ValueError: G is zero or not finite in some instance, so it points nowhere.
    """
    svd = linalg.truncated_svd(problem.one_step_gradient(), rank, options)
    top = svd.S[..., 0]
    if not bool((torch.isfinite(top) & (top > 0)).all()):
        raise ValueError(
            "the one-step gradient must be finite and non-zero (sigma_1 > 0) to initialise from; "
            f"got sigma_1 = {top.flatten().tolist()}; check the labels, or use 'lora'"
        )
    return signed(svd)


def pretrained(problem: Problem, name: str) -> Tensor:
    """W (..., d, k), for the initialisations made from it.

    Raises:
        ValueError: the problem does not know W.
    """
    W = fact(problem, "pretrained")
    if W is None:
        raise ValueError(
            f"{name!r} initialises from the pre-trained weight W, and this problem has none; pass "
            "pretrained=W when making it, or draw it with sample_linear"
        )
    return W


def refuse_unknown_basis(problem: Problem, name: str) -> None:
    """Entrywise initialisations need the coordinates that exact-law sampling leaves out.

    Raises:
        ValueError: the problem is known up to a rotation only.
    """
    if fact(problem, "matrix_free"):
        raise ValueError(
            f"{name!r} depends on the coordinates, and this problem is known up to a rotation "
            "only; draw it with sample_linear instead of sample_linear_matrix_free"
        )


def complete_frame(frame: Tensor, S: Tensor, seeds: tuple[int, ...], stream: str) -> Tensor:
    """Replace the columns whose singular value is zero by a random orthonormal completion.

    An exact SVD leaves the singular vectors of zero singular values to rounding. Here they are
    Haar-distributed in the complement of the others, drawn per seed, so that runs repeat.

    Args:
        frame: (..., n, p), with arbitrary columns where S is zero to rounding.
        S: (..., p), descending.
    """
    n, p = frame.shape[-2:]
    kept = (S > n * linalg.eps(S) * S[..., :1])[..., None, :]
    if bool(kept.all()):
        return frame
    noise = per_seed(lambda rng: normal(rng, n, p), seeds, stream, frame)
    known = torch.where(kept, frame, torch.zeros_like(frame))
    fresh = torch.where(kept, torch.zeros_like(noise), linalg.residual(known, noise))
    # QR leaves the known columns in place up to sign, which the last line undoes.
    Q = torch.linalg.qr(known + fresh).Q
    signs = torch.where(kept, (Q * known).sum(-2, keepdim=True), torch.ones_like(S[..., None, :]))
    return Q * torch.where(signs < 0, -1.0, 1.0)
