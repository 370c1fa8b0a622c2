"""Angles between the leading singular subspaces of two matrices."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.validate import Array

Side = Literal["left", "right"]


def principal_angles(M1: Array, M2: Array, *, rank: int, side: Side = "left") -> Array:
    """Principal angles between the top-`rank` singular subspaces of two matrices.

    Angle i is atan2(sin θ_i, cos θ_i), with sin θ_i the singular values of (I − PPᵀ)Q and cos θ_i
    those of PᵀQ for orthonormal frames P, Q of the two subspaces. Small angles keep their
    relative accuracy beside large ones, as far as the inputs' own rounding allows.

    Args:
        M1: (..., d, k1), float32 or float64, a tensor or a numpy array.
        M2: (..., d, k2); for side="right" the two share their columns instead of their rows.
        rank: dimension p of the subspaces.
        side: "left" compares column spaces, "right" row spaces.

    Returns:
        (..., rank) angles in radians, in [0, π/2], descending, of the kind of the inputs. NaN
        where a subspace is undefined because its matrix has rank below `rank`.

    Raises:
        TypeError, ValueError: inputs that are not matrices of one float dtype, a rank out of range.

    Reference: derivations 6; T3.1 and T3.2 use the largest of these angles.

    >>> import numpy as np
    >>> e = np.eye(3)
    >>> tilted = np.array([[1.0], [0.0], [1e-14]])
    >>> principal_angles(e[:, :1], tilted, rank=1)
    array([1.e-14])
    """
    (P, Q), defined, as_numpy = _frames(M1, M2, rank, side)
    angles = linalg.principal_angles(P, Q)
    return _answer(torch.where(defined[..., None], angles, torch.nan), as_numpy)


def subspace_sine(M1: Array, M2: Array, *, rank: int, side: Side = "left") -> Array:
    """‖P_⊥ᵀQ‖_op, the sine of the largest principal angle between top-`rank` subspaces.

    Args, kind of answer, errors and undefined cases are those of `principal_angles`.

    Returns:
        (...) values in [0, 1].

    >>> import torch
    >>> e = torch.eye(3, dtype=torch.float64)
    >>> subspace_sine(e[:, :2], e[:, 1:], rank=2)
    tensor(1., dtype=torch.float64)
    """
    (P, Q), defined, as_numpy = _frames(M1, M2, rank, side)
    return _answer(torch.where(defined, linalg.largest_sine(P, Q), torch.nan), as_numpy)


def _frames(
    M1: Array, M2: Array, rank: int, side: Side
) -> tuple[tuple[Tensor, Tensor], Tensor, bool]:
    validate.choice("side", side, ("left", "right"))
    first, second = validate.tensor("M1", M1), validate.tensor("M2", M2)
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
