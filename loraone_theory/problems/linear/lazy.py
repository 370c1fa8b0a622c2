"""The linear problem with label noise of any width, for runs of few steps.

In the coordinates that the dynamics see, the noise is a Gaussian Z̃ (min(N, d) × k), which fills
every column: nothing can be cut. A run of T steps meets it in at most r(T + 2) directions of either
side, and only these are drawn (`revealed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors, concatenate, squared_norm
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.randomness import per_seed
from loraone_theory.problems.described import Described
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.linear.covariance import Covariance
from loraone_theory.problems.linear.revealed import Revealed
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free
from loraone_theory.problems.shifted import Shifted


@dataclass(frozen=True, eq=False, repr=False)
class LazyNoiseProblem(Shifted, Described):
    """L = ½‖CE − Z̃‖² + c with Z̃ revealed along CA and Bᵀ, the same function ever after.

    Instances are run one trial each. Make one with `sample_linear_lazy`.

    Args:
        covariance: Σ̂ = CᵀC, batch (n,).
        shift: Δ as Factors (n, ...).
        noise: Z̃.
        constant: c (n,).
        samples: N.
        offset: what was subtracted from W in the frozen part.
        seeds: the seed of each instance.
    """

    covariance: Covariance
    shift: Factors
    noise: Revealed
    constant: Tensor
    samples: int
    offset: Factors | None = None
    seeds: tuple[int, ...] = ()
    recipe: dict[str, Any] | None = None

    matrix_free: ClassVar[bool] = True
    reveals: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True

    @property
    def batch_shape(self) -> torch.Size:
        """The instances."""
        return torch.Size((len(self.seeds),))

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k).

        Raises:
            ValueError: it has more than DENSE_LIMIT entries.
        """
        memory.refuse_beyond_dense("a residual", self.d, self.k, "record 'risk', which needs none")
        return shift.A @ shift.B - self.target.dense()

    def risk(self, shift: Factors) -> Tensor:
        """½‖E‖_F², shape (...), without a d×k matrix."""
        target = self.target
        return 0.5 * squared_norm(concatenate(shift, Factors(-target.A, target.B)))

    def loss(self, shift: Factors) -> Tensor:
        """½‖CE − Z̃‖² + c, shape (...).

        With P and Q along all that was asked, CE = PMQᵀ and the square is
        ‖M − PᵀZ̃Q‖² + ‖Z̃‖² − ‖PᵀZ̃Q‖².
        """
        found = []
        for run in self._runs(shift):
            CA, CT, T = self._halves(run)
            noise = self.noise
            for M in (CA, CT):
                noise.transposed_times(M)
            for M in (run.B.mT, T.B.mT):
                noise.times(M)
            P, Q, core = noise.left.directions, noise.right.directions, noise.core
            inside = (P.mT @ CA) @ (run.B @ Q) - (P.mT @ CT) @ (T.B @ Q)
            squares = [(M * M).sum((-2, -1)) for M in (inside - core, core)]
            found.append(0.5 * (squares[0] + (noise.total - squares[1])) + self.constant)
        return torch.stack(found).view(self._batch(shift))

    def gradients(self, shift: Factors) -> Factors:
        """(CᵀRBᵀ, (CA)ᵀR) with R = CE − Z̃, by thin products."""
        found = []
        for run in self._runs(shift):
            CA, CT, T = self._halves(run)
            B = run.B
            RB = CA @ (B @ B.mT) - CT @ (T.B @ B.mT) - self.noise.times(B.mT)
            from_noise = self.noise.transposed_times(CA).mT
            grad_B = (CA.mT @ CA) @ B - (CA.mT @ CT) @ T.B - from_noise
            found.append(Factors(self.covariance.half_transposed(RB), grad_B))
        batch = self._batch(shift)
        A, B = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Factors(A.view(*batch, *A.shape[-2:]), B.view(*batch, *B.shape[-2:]))

    def one_step_gradient(self) -> Implicit:
        """G = Σ̂Δ + CᵀZ̃ by its products, which reveal Z̃ like any other."""
        shape = torch.Size((*self.batch_shape, self.d, self.k))

        def asked(product: Any, M: Tensor) -> Tensor:
            # Beyond what the run itself may ask for.
            self.noise.most += M.shape[-1]
            return product(M)

        def right(M: Tensor) -> Tensor:
            M = M.expand(*self.batch_shape, *M.shape[-2:])
            inner = self.covariance.half(self.shift.A) @ (self.shift.B @ M)
            return self.covariance.half_transposed(inner + asked(self.noise.times, M))

        def left(M: Tensor) -> Tensor:
            CM = self.covariance.half(M.expand(*self.batch_shape, *M.shape[-2:]))
            inner = self.covariance.half(self.shift.A).mT @ CM
            return self.shift.B.mT @ inner + asked(self.noise.transposed_times, CM)

        return Implicit(shape, right, left, self.like)

    def with_offset(self, offset: Factors) -> LazyNoiseProblem:
        """The same problem with W_f = W − offset."""
        self.noise.most += offset.rank
        return replace(self, offset=self.offset_with(offset))

    def _batch(self, shift: Factors) -> torch.Size:
        return torch.broadcast_shapes(shift.shape[:-2], self.batch_shape)

    def _runs(self, shift: Factors) -> list[Factors]:
        """The instances' factors (n, ...), one after the other along further dimensions."""
        batch = self._batch(shift)
        A, B = (M.expand(*batch, *M.shape[-2:]) for M in shift)
        wide = (M.reshape(-1, *self.batch_shape, *M.shape[-2:]) for M in (A, B))
        return [Factors(*run) for run in zip(*wide, strict=True)]

    def _halves(self, run: Factors) -> tuple[Tensor, Tensor, Factors]:
        """CA, CT_A and T (n, ...)."""
        T = Factors(*(M.expand(*self.batch_shape, *M.shape[-2:]) for M in self.target))
        return self.covariance.half(run.A), self.covariance.half(T.A), T


@drawn
def sample_linear_lazy(
    *,
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    noise_std: float,
    steps: int,
    rank: int,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> LazyNoiseProblem:
    """The instances of `sample_linear_matrix_free` with label noise, exactly in law, for T steps.

    Memory 2r(T + 2)(d + k) in place of the dk of the noise, time O(r²T²(d + k)) in all; one run
    for each instance. Spectral-init and alignments ask for further directions of their own.

    Args:
        steps: T of the run.
        rank: r of the run.

    Other args and errors are those of `sample_linear_matrix_free`.

    Raises:
        ValueError: noise_std = 0, or T >= k/2r, where drawing the noise itself costs no more.

    >>> problem = sample_linear_lazy(
    ...     d=10**4, k=10**4, true_rank=2, samples=10**5, noise_std=0.1, steps=3, rank=2
    ... )
    >>> problem.d, problem.k
    (10000, 10000)
    """
    sigma = validate.number("noise_std", noise_std, positive=True)
    length = validate.integer("steps", steps, least=1)
    r = validate.rank(rank, d=d, k=k)
    if 2 * r * length >= k:
        raise ValueError(
            f"noise that is revealed as a run goes pays for runs of fewer than k/2r steps; got "
            f"steps={length} with k={k}, rank={r}; use sample_linear_matrix_free"
        )
    bare = sample_linear_matrix_free(
        d=d,
        k=k,
        true_rank=true_rank,
        samples=samples,
        spectrum=spectrum,
        condition_number=condition_number,
        seeds=seeds,
        dtype=dtype,
        device=device,
    )
    known = bare.seeds or ()
    most = r * (length + 2) + bare.true_rank
    memory.refuse_beyond_memory(
        f"{2 * most} directions of R^d and R^k for {len(known)} instances, d = {d}, k = {k},",
        16 * most * (d + k) * len(known),
        "lower steps, the rank, the sizes or the number of seeds",
    )
    h = min(d, samples)
    noise = Revealed.draw(known, (d, k, h), sigma**2 / samples, most, bare.like)
    beyond = (samples - h) * k
    squares = per_seed(
        lambda rng: np.asarray(rng.chisquare(beyond) if beyond else 0.0),
        known,
        "noise beyond",
        bare.like,
    )
    V = bare.shift.B.expand(len(known), *bare.shift.B.shape[-2:])
    return LazyNoiseProblem(
        bare.covariance,
        Factors(bare.shift.A, V),
        noise,
        sigma**2 * squares / (2 * samples),
        samples,
        seeds=known,
    )
