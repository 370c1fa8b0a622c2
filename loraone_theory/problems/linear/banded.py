"""A covariance Σ̂ = CᵀC with a banded C, as exact-law sampling makes it for a spiked Σ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
import torch
from torch import Tensor

from loraone_theory.core.shown import Shown
from loraone_theory.problems.linear.covariance import Which

# Up to this width the extremes come from LAPACK's banded solver, O(d²q); above, from Lanczos
# iteration with products and with solves of the banded factorisation.
LAPACK_WIDTH = 512


@dataclass(frozen=True, eq=False, repr=False)
class Banded(Shown):
    """Σ̂ = CᵀC with C[i, i + o] = `factor`[..., o, i] for 0 <= o <= q.

    `diagonals` are those of Σ̂ in the same layout; make it with `from_factor`.
    """

    factor: Tensor  # (..., q + 1, d)
    diagonals: Tensor  # (..., q + 1, d)

    height: ClassVar[int | None] = None

    @classmethod
    def from_factor(cls, factor: Tensor) -> Banded:
        """From the diagonals of C; entries beyond column d must be zero."""
        width, d = factor.shape[-2:]
        diagonals = torch.zeros_like(factor)
        for o in range(width):
            for p in range(width - o):  # row l = i − p of C meets columns i and i + o
                n = d - p - o
                if n > 0:
                    product = factor[..., p, :n] * factor[..., p + o, :n]
                    diagonals[..., o, p : p + n] += product
        return cls(factor, diagonals)

    @property
    def reach(self) -> int | None:
        """q."""
        return self.factor.shape[-2] - 1

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the diagonals."""
        return self.diagonals.shape[:-2]

    def apply(self, M: Tensor, out: Tensor | None = None) -> Tensor:
        """Σ̂M, O(dqm)."""
        out = torch.mul(self.diagonals[..., 0, :, None], M, out=out)
        for o in range(1, self.diagonals.shape[-2]):
            S = self.diagonals[..., o, : M.shape[-2] - o, None]
            out[..., o:, :].addcmul_(S, M[..., : M.shape[-2] - o, :])
            out[..., : M.shape[-2] - o, :].addcmul_(S, M[..., o:, :])
        return out

    def half(self, M: Tensor) -> Tensor:
        """CM."""
        out = self.factor[..., 0, :, None] * M
        for o in range(1, self.factor.shape[-2]):
            rows = M.shape[-2] - o
            out[..., :rows, :].addcmul_(self.factor[..., o, :rows, None], M[..., o:, :])
        return out

    def half_transposed(self, M: Tensor) -> Tensor:
        """CᵀM."""
        out = self.factor[..., 0, :, None] * M
        for o in range(1, self.factor.shape[-2]):
            rows = M.shape[-2] - o
            out[..., o:, :].addcmul_(self.factor[..., o, :rows, None], M[..., :rows, :])
        return out

    def spectrum(self, which: Which) -> Tensor:
        """Eigenvalues by LAPACK's banded solver; the extremes of wide ones by Lanczos iteration."""
        bands = self.diagonals.detach().cpu().double().numpy()
        flat = bands.reshape(-1, *bands.shape[-2:])
        if which == "all":
            found = [scipy.linalg.eigvals_banded(each, lower=True) for each in flat]
        else:
            found = [_extremes(each) for each in flat]
        values = np.stack(found).reshape(*bands.shape[:-2], -1)
        return torch.from_numpy(values).to(self.diagonals)

    def rows(self, start: int, stop: int) -> Banded:
        """The principal block (`factor` is a slice, not its factor)."""
        kept = min(self.factor.shape[-2], stop - start)
        block = self.diagonals[..., :kept, start:stop].clone()
        for o in range(1, block.shape[-2]):
            block[..., o, max(stop - start - o, 0) :] = 0
        return Banded(self.factor[..., :kept, start:stop], block)


def _extremes(bands: np.ndarray) -> np.ndarray:
    d = bands.shape[-1]
    if d <= LAPACK_WIDTH:
        return scipy.linalg.eigvals_banded(bands, lower=True)[[0, -1]]
    offsets = [*range(len(bands)), *range(-len(bands) + 1, 0)]
    diagonals = [bands[abs(o), : d - abs(o)] for o in offsets]
    matrix = scipy.sparse.diags(diagonals, offsets, format="csr")
    start = np.linspace(1, 2, d)
    eigsh = scipy.sparse.linalg.eigsh
    high = eigsh(matrix, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    try:
        root = scipy.linalg.cholesky_banded(bands, lower=True)
    except np.linalg.LinAlgError:  # singular to rounding
        return np.array([0.0, high])

    def solve(x: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.linalg.cho_solve_banded((root, True), x))

    inverse = scipy.sparse.linalg.LinearOperator((d, d), matvec=solve, dtype=float)
    low = 1 / eigsh(inverse, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    return np.array([low, high])
