"""W and Δ as a caller gives them: checked, copied, Δ at its numerical rank."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.validate import Array


def shift_and_pretrained(
    shift: Array | Factors, pretrained: Array | None
) -> tuple[Factors, Tensor | None]:
    """Checked copies of Δ and W; Δ as Factors whose inner dimension is its numerical rank.

    Raises:
        TypeError, ValueError: another dtype, shapes that do not fit, a zero shift, or one whose
            square cannot be represented.
    """
    delta = own_shift(shift)
    if pretrained is None:
        return delta, None
    weight = validate.tensor("pretrained", pretrained, owned=True)
    validate.same_kind(shift=delta.A, pretrained=weight)
    validate.shapes_match(
        "pretrained and shift must have the same last two dimensions (d, k)",
        weight.shape[-2:] == delta.shape[-2:],
        pretrained=weight.shape,
        shift=delta.shape,
    )
    return delta, weight


def own_shift(shift: Array | Factors) -> Factors:
    """A checked copy of Δ as Factors of its numerical rank."""
    if not isinstance(shift, Factors):
        return _at_true_rank(validate.tensor("shift", shift, owned=True))
    return _at_true_rank(checked("shift", shift, owned=True))


def _at_true_rank(given: Tensor | Factors) -> Factors:
    d, k = given.shape[-2:]
    inner = (given.rank,) if isinstance(given, Factors) else ()
    U, S, V = linalg.truncated_svd(given, min(d, k, *inner))
    if not bool((S[..., 0] > 0).all()):
        raise ValueError(
            f"shift must not be zero: there is nothing to learn; got shape {tuple(given.shape)}"
        )
    squares_representable("shift", S[..., 0], "its largest singular value")
    ranks = (S > rank_cutoff(d, k, S.dtype) * S[..., :1]).sum(-1)
    true_rank = int(ranks.max())
    if int(ranks.min()) != true_rank:
        raise ValueError(
            "shift must have the same rank in every instance of the batch; got ranks "
            f"{ranks.flatten().tolist()}; simulate the instances of each rank separately"
        )
    if isinstance(given, Factors) and given.rank == true_rank:
        return given
    return Factors(U[..., :true_rank] * S[..., None, :true_rank], V[..., :true_rank].mT)


def rows_fit(name: str, X: Tensor, pretrained: Tensor, batch: torch.Size) -> None:
    """Raise where inputs X (..., N, d) are not those of W (..., d, k), or cannot be squared."""
    validate.same_kind(**{name: X, "pretrained": pretrained})
    validate.shapes_match(
        f"pretrained must have as many rows as {name} has columns (d)",
        X.shape[-1] == pretrained.shape[-2],
        **{name: X.shape, "pretrained": pretrained.shape},
    )
    validate.broadcastable(name, X.shape[:-2], "pretrained", batch)
    squares_representable(name, largest_entry(X), "its largest entry")


def rank_cutoff(d: int, k: int, dtype: torch.dtype) -> float:
    """max(d, k)·ε: singular values below this share of the largest are rounding."""
    return max(d, k) * torch.finfo(dtype).eps


def squares_representable(name: str, sizes: Tensor, what: str) -> None:
    """Raise where the square of a size would over- or underflow.

    Args:
        name: of the argument.
        sizes: positive numbers, (...).
        what: they are, for the message.

    Raises:
        ValueError: with the offending size and the range that is allowed.
    """
    info = torch.finfo(sizes.dtype)
    # A square needs eps below it to be of use, and the sums over it some room above.
    least, most = (info.tiny / info.eps) ** 0.5, (info.max * info.eps) ** 0.5
    if bool(((sizes >= least) & (sizes <= most)).all()):
        return
    kind = str(sizes.dtype).removeprefix("torch.")
    worst = sizes.flatten()[(sizes.double().log10().abs()).argmax()]
    raise ValueError(
        f"{name} must be of a size whose square {kind} can hold: {what} must lie between "
        f"{least:.1e} and {most:.1e}; got {float(worst):.3g}; rescale {name}"
    )


def separable(name: str, values: Tensor, d: int, k: int) -> None:
    """Raise where given singular values, descending, cannot be told from rounding at this width.

    Raises:
        ValueError: the smallest is below max(d, k)·ε of the largest, or not a positive normal
            number of the dtype.
    """
    info = torch.finfo(values.dtype)
    ratio = float(values[..., -1].amin() / values[..., 0].amax())
    cutoff = rank_cutoff(d, k, values.dtype)
    kind = str(values.dtype).removeprefix("torch.")
    if not (ratio > cutoff and float(values.amin()) >= info.tiny):
        raise ValueError(
            f"{name} must keep the smallest singular value above max(d, k) eps = {cutoff:.1e} of "
            f"the largest in {kind}, else the shift has a lower rank than true_rank; got "
            f"{float(values[..., -1].amin()):.3g} of {float(values[..., 0].amax()):.3g} with "
            f"d={d}, k={k}; change {name}, lower true_rank, or use float64"
        )
    squares_representable(name, values[..., 0], "the largest singular value")


def second_moment(name: str, X: Tensor) -> Tensor:
    """Σ̂ = XᵀX/N (..., d, d).

    Raises:
        ValueError: it over- or underflows, or X is zero.
    """
    squares_representable(name, largest_entry(X), "its largest entry")
    return X.mT @ X / X.shape[-2]


def largest_entry(M: Tensor) -> Tensor:
    """max |M_ij|, (...), without the array of sizes."""
    return torch.maximum(M.amax((-2, -1)), -M.amin((-2, -1)))
