"""Angles between the leading singular subspaces of two matrices."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.validate import Array

Side = Literal["left", "right"]
# One matrix (with batch dimensions), or those of several layers.
Layers = Array | Sequence[Array] | Mapping[str, Array]
HALVES = (torch.float16, torch.bfloat16)


def principal_angles(M1: Layers, M2: Layers, *, rank: int, side: Side = "left") -> Any:
    """Principal angles between the top-`rank` singular subspaces of two matrices.

    Angle i is atan2(sin θ_i, cos θ_i), with sin θ_i the singular values of (I − PPᵀ)Q and cos θ_i
    those of PᵀQ for orthonormal frames P, Q of the two subspaces. Small angles keep their
    relative accuracy beside large ones, as far as the inputs' own rounding allows.

    Args:
        M1: (..., d, k1), a tensor or a numpy array; half precision is computed in float32. Or a
            list or dict of such, one for each layer, of any shapes.
        M2: (..., d, k2); for side="right" the two share their columns instead of their rows. A list
            or dict like M1 where that is one.
        rank: dimension p of the subspaces.
        side: "left" compares column spaces, "right" row spaces.

    Returns:
        (..., rank) angles in radians, in [0, π/2], descending, of the kind of the inputs; a list
        or dict of them for one. NaN where a subspace is undefined because its matrix has rank
        below `rank`.

    Raises:
        TypeError, ValueError: inputs that are not matrices of one float dtype, a rank out of range.

    Reference: derivations 6; T3.1 and T3.2 use the largest of these angles.

    >>> import numpy as np
    >>> e = np.eye(3)
    >>> tilted = np.array([[1.0], [0.0], [1e-14]])
    >>> principal_angles(e[:, :1], tilted, rank=1)
    array([1.e-14])
    """

    def measure(first: Array, second: Array) -> Array:
        (P, Q), defined, as_numpy = _frames(first, second, rank, side)
        angles = linalg.principal_angles(P, Q)
        return _answer(torch.where(defined[..., None], angles, torch.nan), as_numpy)

    return _by_layer(measure, M1, M2)


def subspace_sine(M1: Layers, M2: Layers, *, rank: int, side: Side = "left") -> Any:
    """‖P_⊥ᵀQ‖_op, the sine of the largest principal angle between top-`rank` subspaces.

    Args, kind of answer, errors and undefined cases are those of `principal_angles`.

    Returns:
        (...) values in [0, 1].

    >>> import torch
    >>> e = torch.eye(3, dtype=torch.float64)
    >>> subspace_sine(e[:, :2], e[:, 1:], rank=2)
    tensor(1., dtype=torch.float64)
    """

    def measure(first: Array, second: Array) -> Array:
        (P, Q), defined, as_numpy = _frames(first, second, rank, side)
        return _answer(torch.where(defined, linalg.largest_sine(P, Q), torch.nan), as_numpy)

    return _by_layer(measure, M1, M2)


def _by_layer(measure: Callable[[Any, Any], Array], M1: Layers, M2: Layers) -> Any:
    """`measure` on a pair of matrices, or on those of each layer.

    Raises:
        ValueError: M1 and M2 have different layers.
        TypeError: one is a collection and the other is not.
    """
    for kind in (Mapping, (list, tuple)):
        if isinstance(M1, kind) != isinstance(M2, kind):
            raise TypeError(
                "M1 and M2 must both be matrices, both lists or both dicts of them; got "
                f"{type(M1).__name__} and {type(M2).__name__}; pick the layers of one"
            )
    if isinstance(M1, Mapping) and isinstance(M2, Mapping):
        if set(M1) != set(M2):
            odd = sorted(set(M1) ^ set(M2), key=str)
            raise ValueError(
                f"M1 and M2 must have the same layers; got {odd[0]!r} in one of them only "
                f"({len(odd)} such); leave out what one lacks"
            )
        return {name: measure(M1[name], M2[name]) for name in M1}
    if isinstance(M1, (list, tuple)) and isinstance(M2, (list, tuple)):
        if len(M1) != len(M2):
            raise ValueError(
                f"M1 and M2 must have the same layers; got {len(M1)} and {len(M2)} of them; "
                "leave out what one lacks"
            )
        return [measure(first, second) for first, second in zip(M1, M2, strict=True)]
    return measure(M1, M2)


def _wide(M: Any) -> Any:
    """Half precision as float32."""
    if isinstance(M, Tensor) and M.dtype in HALVES:
        return M.float()
    if type(M) is np.ndarray and M.dtype == np.float16:
        return M.astype(np.float32)
    return M


def _frames(
    M1: Array, M2: Array, rank: int, side: Side
) -> tuple[tuple[Tensor, Tensor], Tensor, bool]:
    validate.choice("side", side, ("left", "right"))
    first, second = validate.tensor("M1", _wide(M1)), validate.tensor("M2", _wide(M2))
    validate.same_kind(M1=first, M2=second)
    validate.broadcastable("M1", first.shape[:-2], "M2", second.shape[:-2])
    if side == "right":
        first, second = first.mT, second.mT
    validate.shapes_match(
        f"M1 and M2 must share their {'rows' if side == 'left' else 'columns'}",
        first.shape[-2] == second.shape[-2],
        M1=M1.shape,
        M2=M2.shape,
    )
    for M in (first, second):
        validate.rank(rank, d=M.shape[-2], k=M.shape[-1])
    P, defined_P = linalg.left_frame(first, rank)
    Q, defined_Q = linalg.left_frame(second, rank)
    as_numpy = isinstance(M1, np.ndarray) and isinstance(M2, np.ndarray)
    return (P, Q), defined_P & defined_Q, as_numpy


def _answer(values: Tensor, as_numpy: bool) -> Array:
    return values.numpy() if as_numpy else values


def __getattr__(name: str) -> Any:
    if name in ("ALIGNMENTS", "RECORDS", "Reference", "View", "reference"):
        warnings.warn(
            f"loraone_theory.metrics.{name} is now loraone_theory.dynamics.records.{name}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module("loraone_theory.dynamics.records"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
