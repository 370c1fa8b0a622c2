"""The sample covariance Σ̂ as an operator on thin matrices: identity, diagonal, tridiagonal, dense.

Each form offers the same few methods, so that a problem never asks which one it holds:

- `apply(M)`: Σ̂M for M (..., d, m), a new tensor, or written into `out`.
- `half(M)`: CM for one fixed C with Σ̂ = CᵀC, so that floors keep full relative accuracy.
- `half_transposed(M)`: CᵀM for the same C.
- `spectrum(which)`: eigenvalues ascending, `"extremes"` (..., 2) or `"all"` (..., d).
- `reach`: how many neighbouring rows a row of Σ̂M depends on; None where it needs all of them.
- `rows(start, stop)`: the principal block of those rows, to work through M in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core.shown import Shown

Which = Literal["extremes", "all"]


class Covariance(Protocol):
    """What a problem may ask of Σ̂ (..., d, d)."""

    @property
    def reach(self) -> int | None:
        """Neighbouring rows that a row of Σ̂M depends on; None for all rows."""

    @property
    def height(self) -> int | None:
        """Rows of C where they may be fewer than d, so that products go through C; else None."""

    @property
    def batch_shape(self) -> torch.Size:
        """Leading batch dimensions."""

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """Σ̂M, shape (..., d, m); `out` must not overlap M."""

    def half(self, M: Tensor) -> Tensor:
        """CM with Σ̂ = CᵀC, shape (..., d, m), or (..., height, m)."""

    def half_transposed(self, M: Tensor) -> Tensor:
        """CᵀM for the same C, shape (..., d, m)."""

    def spectrum(self, which: Which) -> Tensor:
        """Eigenvalues, ascending: (..., 2) or (..., d)."""

    def rows(self, start: int, stop: int) -> Covariance:
        """The principal block of rows start to stop."""


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Shown):
    """Σ̂ = I: the population problem (N = ∞)."""

    like: Tensor  # (d,) ones: carries width, dtype and device

    reach: ClassVar[int | None] = 0
    height: ClassVar[int | None] = None

    @property
    def batch_shape(self) -> torch.Size:
        """No batch dimensions."""
        return torch.Size()

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """M itself."""
        return M if out is None else out.copy_(M)

    def half(self, M: Tensor) -> Tensor:
        """M itself."""
        return M

    def half_transposed(self, M: Tensor) -> Tensor:
        """M itself."""
        return M

    def spectrum(self, which: Which) -> Tensor:
        """Ones."""
        return self.like[[0, -1]] if which == "extremes" else self.like

    def rows(self, start: int, stop: int) -> Identity:
        """A smaller identity."""
        return Identity(self.like[start:stop])


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Shown):
    """Σ̂ = diag(values), in its eigenbasis."""

    values: Tensor  # (..., d)

    reach: ClassVar[int | None] = 0
    height: ClassVar[int | None] = None

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `values`."""
        return self.values.shape[:-1]

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """Rows of M scaled by `values`."""
        return torch.mul(self.values[..., None], M, out=out)

    def half(self, M: Tensor) -> Tensor:
        """Rows of M scaled by the square roots."""
        return self.values.sqrt()[..., None] * M

    def half_transposed(self, M: Tensor) -> Tensor:
        """The same scaling."""
        return self.half(M)

    def spectrum(self, which: Which) -> Tensor:
        """The values in order."""
        if which == "extremes":
            return torch.stack([self.values.amin(-1), self.values.amax(-1)], dim=-1)
        return self.values.sort(dim=-1).values

    def rows(self, start: int, stop: int) -> Diagonal:
        """The values of those rows."""
        return Diagonal(self.values[..., start:stop])


@dataclass(frozen=True, eq=False, repr=False)
class Tridiagonal(Shown):
    """Σ̂ = CᵀC with C upper bidiagonal: diagonal c (..., d), superdiagonal f (..., d − 1).

    `main` and `off` are the diagonals of Σ̂; make it with `from_bidiagonal`.
    """

    c: Tensor
    f: Tensor
    main: Tensor
    off: Tensor

    reach: ClassVar[int | None] = 1
    height: ClassVar[int | None] = None

    @classmethod
    def from_bidiagonal(cls, c: Tensor, f: Tensor) -> Tridiagonal:
        """From the diagonals of C: main_i = c_i² + f_{i−1}², off_i = c_i f_i."""
        main = c**2
        main[..., 1:] += f**2
        return cls(c, f, main, c[..., :-1] * f)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the diagonals."""
        return self.main.shape[:-1]

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """The three-term product, O(d·m)."""
        out = torch.mul(self.main[..., None], M, out=out)
        out[..., 1:, :].addcmul_(self.off[..., None], M[..., :-1, :])
        out[..., :-1, :].addcmul_(self.off[..., None], M[..., 1:, :])
        return out

    def half(self, M: Tensor) -> Tensor:
        """CM."""
        out = self.c[..., None] * M
        out[..., :-1, :].addcmul_(self.f[..., None], M[..., 1:, :])
        return out

    def half_transposed(self, M: Tensor) -> Tensor:
        """CᵀM."""
        out = self.c[..., None] * M
        out[..., 1:, :].addcmul_(self.f[..., None], M[..., :-1, :])
        return out

    def spectrum(self, which: Which) -> Tensor:
        """LAPACK: bisection for the two extremes (O(d) each), QR iteration for all (O(d²))."""
        main = self.main.detach().cpu().double().numpy()
        off = self.off.detach().cpu().double().numpy()
        width, count = main.shape[-1], main[..., 0].size
        flat = [
            _extremes(a, b) if which == "extremes" else scipy.linalg.eigvalsh_tridiagonal(a, b)
            for a, b in zip(main.reshape(count, width), off.reshape(count, width - 1), strict=True)
        ]
        values = np.stack(flat).reshape(*main.shape[:-1], -1)
        return torch.from_numpy(values).to(self.main)

    def rows(self, start: int, stop: int) -> Tridiagonal:
        """The tridiagonal block of those rows (`c` and `f` are its slices, not its factor)."""
        return Tridiagonal(
            self.c[..., start:stop],
            self.f[..., start : stop - 1],
            self.main[..., start:stop],
            self.off[..., start : stop - 1],
        )


def _extremes(main: np.ndarray, off: np.ndarray) -> np.ndarray:
    last = len(main) - 1
    ends = [
        scipy.linalg.eigvalsh_tridiagonal(
            main, off, select="i", select_range=(i, i), lapack_driver="stebz"
        )[0]
        for i in (0, last)
    ]
    return np.array(ends)


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Shown):
    """Σ̂ as a symmetric matrix, with a factor of it where noise needs one and the same."""

    matrix: Tensor  # (..., d, d)
    root: Tensor | None = None  # C (..., h, d)

    reach: ClassVar[int | None] = None
    height: ClassVar[int | None] = None

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `matrix`."""
        return self.matrix.shape[:-2]

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """The matrix product."""
        product = self.matrix @ M
        return product if out is None else out.copy_(product)

    def half(self, M: Tensor) -> Tensor:
        """CM, or Λ^{1/2}QᵀM from Σ̂ = QΛQᵀ."""
        if self.root is not None:
            return self.root @ M
        values, Q = torch.linalg.eigh(self.matrix)
        return values.clamp_min(0).sqrt()[..., None] * (Q.mT @ M)

    def half_transposed(self, M: Tensor) -> Tensor:
        """CᵀM, or QΛ^{1/2}M."""
        if self.root is not None:
            return self.root.mT @ M
        values, Q = torch.linalg.eigh(self.matrix)
        return Q @ (values.clamp_min(0).sqrt()[..., None] * M)

    def spectrum(self, which: Which) -> Tensor:
        """Eigenvalues of the matrix."""
        values = torch.linalg.eigvalsh(self.matrix)
        return values[..., [0, -1]] if which == "extremes" else values

    def rows(self, start: int, stop: int) -> Dense:
        """The principal block."""
        return Dense(self.matrix[..., start:stop, start:stop])


@dataclass(frozen=True, eq=False, repr=False)
class Rows(Shown):
    """Σ̂ = XᵀX/b of a few rows, as the product of X with itself: no d×d matrix."""

    inputs: Tensor  # (..., b, d)

    reach: ClassVar[int | None] = None

    @property
    def height(self) -> int:
        """b."""
        return self.inputs.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of `inputs`."""
        return self.inputs.shape[:-2]

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """Xᵀ(XM)/b."""
        product = self.inputs.mT @ (self.inputs @ M) / self.height
        return product if out is None else out.copy_(product)

    def half(self, M: Tensor) -> Tensor:
        """XM/√b, shape (..., b, m)."""
        return self.inputs @ M / self.height**0.5

    def half_transposed(self, M: Tensor) -> Tensor:
        """XᵀM/√b for M (..., b, m)."""
        return self.inputs.mT @ M / self.height**0.5

    def spectrum(self, which: Which) -> Tensor:
        """Squared singular values of X/√b, with zeros up to d."""
        squares = (torch.linalg.svdvals(self.inputs) ** 2 / self.height).flip(-1)
        zeros = squares.new_zeros(*squares.shape[:-1], self.inputs.shape[-1] - squares.shape[-1])
        values = torch.cat([zeros, squares], dim=-1)
        return values[..., [0, -1]] if which == "extremes" else values

    def rows(self, start: int, stop: int) -> Rows:
        """The principal block: those columns of X."""
        return Rows(self.inputs[..., start:stop])
