"""Dense Gaussian sensing drawn exactly in law with T matrices in place of m.

Rotating R^m leaves the law of 𝒜 unchanged, so in a basis of R^m that is chosen as the run goes
every new direction E of R^{dk} meets one new row: a χ variable along E, and a Gaussian matrix off
all directions seen before. Runs of T steps need T rows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import eps
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.problems.base import REVEALED
from loraone_theory.problems.described import Described
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.linear.sampling import spectrum_values
from loraone_theory.problems.sensing.sampling import haar_shift
from loraone_theory.problems.shifted import Shifted

# A residual is new where its part off those before exceeds this many eps of ‖AB‖ + ‖T‖.
NEW = 256


@dataclass
class _Rows:
    """What has been revealed of 𝒜, for every instance: directions q_s and rows G_j."""

    seeds: tuple[int, ...]
    m: int
    most: int
    noise: Tensor | None  # ‖z‖ (n,), the coordinate of z along its own row
    directions: Tensor = field(metadata=REVEALED)  # (n, J, dk), unit or zero
    matrices: Tensor = field(metadata=REVEALED)  # (n, J', dk), the row of z first
    lock: threading.Lock = field(default_factory=threading.Lock, metadata=REVEALED)

    def images(self, E: Tensor, size: Tensor) -> Tensor:
        """The coordinates of 𝒜(E) − z along the rows, (n, J'), with a new row where E needs one."""
        off = E
        for _ in range(2):
            along = (self.directions @ off[..., None])[..., 0]
            off = off - (self.directions.mT @ along[..., None])[..., 0]
        length = off.norm(dim=-1)
        new = length > NEW * eps(E) * size
        if bool(new.any()):
            self._reveal(torch.where(new[:, None], off / length[:, None], 0.0), new)
        c = (self.matrices @ E[..., None])[..., 0]
        if self.noise is not None:
            c[:, 0] -= self.noise
        return c

    def _reveal(self, q: Tensor, new: Tensor) -> None:
        count = self.matrices.shape[-2]
        if count >= self.most:
            raise ValueError(
                f"this problem was drawn for {self.most} evaluations, and one more is asked for; "
                "draw it with a larger steps"
            )
        self.directions = torch.cat([self.directions, q[:, None]], dim=-2)
        freedom = self.m - count
        width = q.shape[-1]
        stream = f"row/{count}"

        def draw(rng: np.random.Generator) -> np.ndarray:
            return np.append(np.sqrt(rng.chisquare(freedom)), normal(rng, width))

        drawn_row = per_seed(draw, self.seeds, stream, q)
        chi, g = drawn_row[:, :1], drawn_row[:, 1:]
        along = (self.directions @ g[..., None])[..., 0]
        g = g - (self.directions.mT @ along[..., None])[..., 0]
        row = torch.where(new[:, None], chi * q + g, 0.0)
        self.matrices = torch.cat([self.matrices, row[:, None]], dim=-2)


@dataclass(frozen=True, eq=False, repr=False)
class LazyDenseProblem(Shifted, Described):
    """L = ‖𝒜(AB) − y‖²/2m of a dense Gaussian 𝒜 that is revealed along the residuals it meets.

    Loss and gradients at a point are drawn when they are first asked for and the same ever after,
    so an instance is one function, in the order of its first evaluations. Instances are run one
    trial each. Make one with `sample_dense_lazy`.

    Args:
        rows: what has been revealed.
        shift: Δ as Factors (n, ...).
        offset: what was subtracted from W in the frozen part.
        seeds: the seed of each instance.
    """

    rows: _Rows
    shift: Factors
    offset: Factors | None = None
    seeds: tuple[int, ...] = ()
    recipe: dict[str, Any] | None = None

    reveals: ClassVar[bool] = True

    @property
    def measurements(self) -> int:
        """m."""
        return self.rows.m

    @property
    def batch_shape(self) -> torch.Size:
        """The instances."""
        return self.shift.shape[:-2]

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k)."""
        return shift.A @ shift.B - self.target.dense()

    def risk(self, shift: Factors) -> Tensor:
        """½‖E‖_F², shape (...)."""
        return 0.5 * (self.residual(shift) ** 2).sum((-2, -1))

    def loss(self, shift: Factors) -> Tensor:
        """Σ_j c_j²/2m with c the coordinates of 𝒜(E) − z, shape (...)."""
        batch = torch.broadcast_shapes(shift.shape[:-2], self.batch_shape)
        found = [(c * c).sum(-1) for c in self._images(shift)]
        return torch.stack(found).view(batch) / (2 * self.measurements)

    def gradients(self, shift: Factors) -> Factors:
        """(RBᵀ, AᵀR) with R = Σ_j c_j G_j/m."""
        R = self._pulled(shift)
        return Factors(R @ shift.B.mT, shift.A.mT @ R)

    def one_step_gradient(self) -> Tensor:
        """G = 𝒜*(y)/m (n, d, k): the first evaluation, at AB = 0 and without an offset."""
        zero = Factors(self.like.new_zeros(self.d, 1), self.like.new_zeros(1, self.k))
        return -replace(self, offset=None)._pulled(zero)

    def with_offset(self, offset: Factors) -> LazyDenseProblem:
        """The same problem with W_f = W − offset."""
        return replace(self, offset=self.offset_with(offset))

    def _pulled(self, shift: Factors) -> Tensor:
        batch = torch.broadcast_shapes(shift.shape[:-2], self.batch_shape)
        found = [
            (c[:, None] @ self.rows.matrices[:, : c.shape[-1]])[:, 0] for c in self._images(shift)
        ]
        return torch.stack(found).view(*batch, self.d, self.k) / self.measurements

    def _images(self, shift: Factors) -> list[Tensor]:
        n, width = len(self.seeds), self.d * self.k
        E = self.residual(shift)
        size = torch.linalg.matrix_norm(E) + 2 * torch.linalg.matrix_norm(self.target.dense())
        E = E.expand(*size.shape, self.d, self.k).reshape(-1, n, width)
        with self.rows.lock:
            return [self.rows.images(e, s) for e, s in zip(E, size.reshape(-1, n), strict=True)]


@drawn
def sample_dense_lazy(
    *,
    d: int,
    k: int,
    true_rank: int,
    measurements: int,
    steps: int,
    noise_std: float = 0.0,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> LazyDenseProblem:
    """The instances of `sample_sensing(ensemble="dense")`, exactly in law, for runs of T steps.

    Memory 2(T + 2)dk in place of mdk, time O(T²dk) in all. Any rule; one run per instance.

    Args:
        steps: T; with Spectral-init and the last loss T + 2 < m rows are revealed at most.

    Other args and errors are those of `sample_sensing`.

    Raises:
        ValueError: T + 2 >= m, where drawing 𝒜 itself costs no more.

    >>> sample_dense_lazy(d=6, k=5, true_rank=1, measurements=60, steps=20)
    sample_dense_lazy(d=6, k=5, true_rank=1, measurements=60, steps=20)
    """
    validate.integer("d", d, least=1)
    validate.integer("k", k, least=1)
    validate.rank(true_rank, d=d, k=k, name="true_rank")
    m = validate.integer("measurements", measurements, least=1)
    most = validate.integer("steps", steps, least=1) + 2
    sigma = validate.number("noise_std", noise_std)
    if most >= m:
        raise ValueError(
            f"a lazily drawn operator serves runs shorter than m: steps + 2 < measurements; got "
            f"steps={steps} with measurements={m}; use sample_sensing"
        )
    values, draws = spectrum_values(true_rank, spectrum, condition_number), validate.seeds(seeds)
    like = torch.empty(0, dtype=validate.dtype(dtype), device=validate.device(device))
    memory.refuse_beyond_memory(
        f"{2 * most} matrices of {d} x {k} for {len(draws)} instances",
        16 * most * d * k * len(draws),
        "lower steps, the sizes or the number of seeds",
    )
    shift = haar_shift(d, k, torch.from_numpy(values).to(like), draws, like)
    n = len(draws)
    rows = _Rows(draws, m, most + 1, None, like.new_zeros(n, 0, d * k), like.new_zeros(n, 0, d * k))
    if sigma > 0:
        rows.noise = sigma * per_seed(
            lambda rng: np.asarray(np.sqrt(rng.chisquare(m))), draws, "noise", like
        )
        rows.matrices = per_seed(lambda rng: normal(rng, 1, d * k), draws, "row/0", like)
    return LazyDenseProblem(rows, shift, seeds=draws)
