"""Laws of the inputs: rows z with E zzᵀ = I, and x = Σ^{1/2}z."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.linalg import eps
from loraone_theory.core.randomness import normal
from loraone_theory.core.validate import Array
from loraone_theory.problems.linear.covariance import Covariance, Dense, Diagonal

# (generator, N, d) -> rows (N, d).
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def rademacher(rng: np.random.Generator, N: int, d: int) -> np.ndarray:
    """Independent signs."""
    return rng.integers(2, size=(N, d)) * 2.0 - 1.0


def sphere(rng: np.random.Generator, N: int, d: int) -> np.ndarray:
    """Uniform on the sphere of radius √d.

    >>> z = sphere(np.random.default_rng(0), 3, 4)
    >>> np.allclose((z**2).sum(1), 4)
    True
    """
    z = normal(rng, N, d)
    return z * (d**0.5 / np.linalg.norm(z, axis=1, keepdims=True))


def student(freedom: float) -> Draw:
    """Independent Student entries of `freedom` ν > 2 degrees, scaled to variance 1."""

    def draw(rng: np.random.Generator, N: int, d: int) -> np.ndarray:
        return rng.standard_t(freedom, size=(N, d)) * ((freedom - 2) / freedom) ** 0.5

    return draw


def elliptic(freedom: float) -> Draw:
    """Student rows √((ν − 2)/χ²_ν)·g, g ~ N(0, I): one χ² for all entries of a row, ν > 2.

    E‖x‖²(v·x)² = (d + 2)(ν − 2)/(ν − 4) for ‖v‖ = 1, where ν > 4.
    """

    def draw(rng: np.random.Generator, N: int, d: int) -> np.ndarray:
        return normal(rng, N, d) * ((freedom - 2) / rng.chisquare(freedom, size=(N, 1))) ** 0.5

    return draw


LAWS: dict[str, Draw] = {"gaussian": normal, "rademacher": rademacher, "sphere": sphere}


# Of ν degrees of freedom.
STUDENT: dict[str, Callable[[float], Draw]] = {"student": student, "elliptic": elliptic}


def input_law(inputs: str | Draw, freedom: float) -> Draw:
    """The law by name, those of Student with their degrees of freedom, or a callable as it is.

    Raises:
        ValueError: an unknown name, or ν <= 2, where there is no variance.
    """
    freedom = validate.number("freedom", freedom, positive=True)
    if not isinstance(inputs, str):
        return _fitting(validate.function("inputs", inputs))
    validate.choice("inputs", inputs, [*LAWS, *STUDENT])
    if inputs in LAWS:
        return LAWS[inputs]
    if freedom <= 2:
        raise ValueError(
            f"freedom of Student inputs must be > 2, else they have no variance; got {freedom}"
        )
    return STUDENT[inputs](freedom)


def _fitting(draw: Draw) -> Draw:
    """A law of one's own, whose rows are looked at."""

    def rows(rng: np.random.Generator, N: int, d: int) -> np.ndarray:
        Z = np.asarray(draw(rng, N, d))
        if Z.shape != (N, d) or Z.dtype.kind not in "fiu" or not np.isfinite(Z).all():
            raise ValueError(
                f"inputs must return finite rows of shape (N, d) = {(N, d)}; got shape {Z.shape} "
                f"of {Z.dtype}"
            )
        return Z.astype(np.float64, copy=False)

    return rows


def population_covariance(given: Array | None, d: int, like: Tensor) -> Covariance | None:
    """Σ from its diagonal (d,) or in full (d, d); None for the identity.

    Raises:
        ValueError: another shape, or not symmetric positive definite.
    """
    if given is None:
        return None
    matrix = validate.tensor("covariance", given, least_dims=1, owned=True).to(like)
    validate.shapes_match(
        "covariance must be Σ in full (d, d) or its diagonal (d,)",
        matrix.shape in ((d,), (d, d)),
        covariance=matrix.shape,
        d=(d,),
    )
    values = matrix
    if matrix.ndim == 2:
        if bool(((matrix - matrix.mT).abs() > d * eps(matrix) * matrix.abs().max()).any()):
            raise ValueError("covariance must be symmetric; pass (Σ + Σᵀ)/2")
        values = torch.linalg.eigvalsh(matrix)
    if not bool(values.min() > 0):
        raise ValueError(
            f"covariance must be positive definite; its least eigenvalue is {float(values.min()):g}"
        )
    return Diagonal(matrix) if matrix.ndim == 1 else Dense(matrix)


def coloured(Z: Tensor, covariance: Covariance | None) -> Tensor:
    """Rows z (..., N, d) as x = Σ^{1/2}z, for one factor with x xᵀ = Σ in the mean."""
    if covariance is None:
        return Z
    return covariance.half_transposed(Z.mT).mT
