"""Random linear instances: one per seed, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.names import InputLaw
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.core.validate import Array
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.given import separable
from loraone_theory.problems.linear.covariance import Covariance, Dense, Tridiagonal
from loraone_theory.problems.linear.laws import Draw, coloured, input_law, population_covariance
from loraone_theory.problems.linear.noise import project
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.spiked import sample_spiked, spike_values


@drawn
def sample_linear(
    *,
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    noise_std: float = 0.0,
    inputs: InputLaw | str | Draw = "gaussian",
    freedom: float = 5.0,
    covariance: Array | None = None,
    keep_inputs: bool = False,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> LinearProblem:
    """Instances of the linear experiment: Δ = U diag(λ*) Vᵀ, W (and X) i.i.d. N(0, 1).

    Args:
        d: input width.
        k: output width.
        true_rank: r*, 1 <= r* <= min(d, k).
        samples: N, the number of rows of X.
        spectrum: λ*, r* positive values, descending. Default: geometric from 1 to
            1/condition_number.
        condition_number: κ = λ₁*/λ*_{r*} >= 1 of the default spectrum.
        noise_std: σ >= 0 of the labels, Y = X(W + Δ) + Z with Z i.i.d. N(0, σ²). The risk stays
            that of the noiseless labels.
        inputs: the law of z in x = Σ^{1/2}z: "gaussian", "rademacher", "sphere", "student"
            (independent entries), "elliptic" (Student rows, whose entries share their scale), or
            (generator, N, d) -> rows with E zzᵀ = I.
        freedom: ν > 2 of Student inputs.
        covariance: Σ in full or its diagonal; by default I. The risk is ½ tr(EᵀΣE).
        keep_inputs: hold X, which minibatches need, and not only Σ̂.
        seeds: one instance per seed.
        dtype: float32 or float64; the draws are the same.
        device: where the tensors live; the draws are made on the CPU.

    Returns:
        A LinearProblem of batch shape (len(seeds),), with U and V Haar-distributed.

    Raises:
        ValueError: a size, a rank or a spectrum that breaks the rules above.

    >>> problem = sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=(0, 1, 2))
    >>> problem.batch_shape
    torch.Size([3])
    """
    values, seeds, like = _arguments(
        d, k, true_rank, samples, spectrum, condition_number, seeds, dtype, device
    )
    sigma = validate.number("noise_std", noise_std)
    keep = validate.flag("keep_inputs", keep_inputs)
    whole = keep or sigma > 0
    memory.refuse_beyond_memory(
        f"X (N × d), Σ̂ (d × d) and W (d × k) of {len(seeds)} instances, N = {samples}, d = {d}, "
        f"k = {k},",
        8 * d * ((len(seeds) if whole else 1) * samples + len(seeds) * (d + k)),
        "lower the sizes or the number of seeds, or use sample_linear_matrix_free",
    )
    law = input_law(inputs, freedom)
    sigma_x = population_covariance(covariance, d, like)

    def inputs_of(some: Sequence[int]) -> Tensor:
        return coloured(per_seed(lambda rng: law(rng, samples, d), some, "inputs", like), sigma_x)

    # One instance at a time: its X stays in the cache, and its Σ̂ does not depend on the batch.
    X = inputs_of(seeds) if whole else None
    rows = (inputs_of((seed,)) for seed in seeds) if X is None else X.split(1)
    S = torch.cat([x.mT @ x / samples for x in rows])
    U = per_seed(lambda rng: haar_frame(rng, d, true_rank), seeds, "left frame", like)
    V = per_seed(lambda rng: haar_frame(rng, k, true_rank), seeds, "right frame", like)
    W = per_seed(lambda rng: normal(rng, d, k), seeds, "pretrained", like)
    problem = LinearProblem(
        Dense(S),
        Factors(U * values, V.mT),
        W,
        samples=samples,
        seeds=seeds,
        inputs=X if keep else None,
        input_law=inputs if isinstance(inputs, str) else "given",
        population_covariance=sigma_x,
    )
    if X is None or sigma == 0:
        return problem
    Z = sigma * per_seed(lambda rng: normal(rng, samples, k), seeds, "noise", like)
    factored, noise, constant = project(X, S, Z)
    return replace(
        problem,
        covariance=factored,
        noise=noise,
        constant=constant,
        row_noise=Z if keep else None,
        noise_std=sigma,
    )


@drawn
def linear_population(**arguments: Any) -> LinearProblem:
    """The problem at N = ∞ of the W and Δ that `sample_linear` draws with the same arguments."""
    sampled = sample_linear(**arguments)
    return LinearProblem.population(shift=sampled.shift, pretrained=sampled.pretrained)


@drawn
def sample_linear_matrix_free(
    *,
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    noise_std: float = 0.0,
    spikes: Sequence[float] | None = None,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> LinearProblem:
    """The instances of `sample_linear`, exactly in law, without X, Σ̂ or any d×d matrix.

    For Gaussian X, Golub–Kahan bidiagonalisation X = P C Qᵀ has independent diagonal χ_N, …,
    χ_{N−d+1} and superdiagonal χ_{d−1}, …, χ_1, and the law of X is invariant under rotations of
    the input space. Hence Σ̂ has the law of Q′ T Q′ᵀ with T = CᵀC/N tridiagonal and Q′ Haar and
    independent of T; in the basis Q′ the covariance is T and the frame U of Δ is again Haar. The
    output space is rotated so that V is the first r* unit vectors. O(d) numbers are drawn and
    O(d r*²) operations done. For N < d the factor is square of width N, with diagonal
    χ_{d−N+1}, …, χ_d and superdiagonal χ_1, …, χ_{N−1}, and Σ̂ is zero beyond.

    Label noise is Z̃ = PᵀZ/√N, i.i.d. N(0, σ²/N) and independent of all else, and the constant
    σ²χ²_{(N−d)k}/2N: d·k numbers, and a step then costs O(dkr).

    With `spikes` the inputs have Σ = diag(spikes, 1, …, 1), as those of `sample_linear` with that
    covariance, and the factor is banded (`spiked`).

    The law is exact for Gaussian inputs only. Coordinates are those of the rotated spaces, so W is
    not known and methods that are not rotation-equivariant are refused.

    Args:
        spikes: the eigenvalues of Σ that are not one, fewer than d positive numbers.

    Other args and errors are those of `sample_linear`.

    >>> problem = sample_linear_matrix_free(d=1000, k=1000, true_rank=2, samples=16_000)
    >>> bool(problem.covariance_deviation() < 0.75)
    True
    """
    values, seeds, like = _arguments(
        d, k, true_rank, samples, spectrum, condition_number, seeds, dtype, device
    )
    sigma = validate.number("noise_std", noise_std)
    tall = None if spikes is None else spike_values(spikes, d)
    memory.refuse_beyond_memory(
        f"the frames of {len(seeds)} instances, d = {d}, k = {k}, r* = {true_rank},",
        8 * (len(seeds) * d + k) * (true_rank + 2),
        "lower the sizes or the number of seeds",
    )
    if sigma > 0:
        memory.refuse_beyond_memory(
            f"the label noise (d × k) of {len(seeds)} instances, d = {d}, k = {k},",
            8 * len(seeds) * d * k,
            "lower k or the number of seeds, or use sample_linear_lazy for a short run",
        )
    covariance: Covariance
    if tall is None:
        law, (covariance, U) = None, _white(d, true_rank, samples, seeds, like)
    else:
        covariance, U, law = sample_spiked(tall, d, true_rank, samples, seeds, like)
    padding = (0, max(d - samples, 0))
    V = torch.eye(k, true_rank, dtype=like.dtype, device=like.device)
    shift = Factors(U * values, V.mT)
    problem = LinearProblem(
        covariance,
        shift,
        samples=samples,
        matrix_free=True,
        seeds=seeds,
        input_law="gaussian",
        population_covariance=law,
    )
    if sigma == 0:
        return problem
    inside = min(d, samples)
    noise = per_seed(lambda rng: normal(rng, inside, k), seeds, "noise", like)
    rest = (samples - inside) * k
    squares = per_seed(
        lambda rng: np.asarray(rng.chisquare(rest) if rest else 0.0), seeds, "noise beyond", like
    )
    return replace(
        problem,
        noise=torch.nn.functional.pad(sigma / samples**0.5 * noise, (0, 0, *padding)),
        constant=sigma**2 * squares / (2 * samples),
        noise_std=sigma,
    )


def _white(
    d: int, true_rank: int, samples: int, seeds: Sequence[int], like: Tensor
) -> tuple[Tridiagonal, Tensor]:
    """Σ̂ and the frame U at Σ = I."""
    on, off = _freedoms(samples, d)
    c = per_seed(lambda rng: np.sqrt(rng.chisquare(on)), seeds, "diagonal", like)
    f = per_seed(lambda rng: np.sqrt(rng.chisquare(off)), seeds, "superdiagonal", like)
    padding = (0, max(d - samples, 0))
    c, f = (torch.nn.functional.pad(part, padding) for part in (c, f))
    U = per_seed(lambda rng: haar_frame(rng, d, true_rank), seeds, "left frame", like)
    return Tridiagonal.from_bidiagonal(c / samples**0.5, f / samples**0.5), U


def _freedoms(samples: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom of the bidiagonal factor's diagonal and superdiagonal."""
    if samples >= d:
        return np.arange(samples, samples - d, -1), np.arange(d - 1, 0, -1)
    return np.arange(d - samples + 1, d + 1), np.arange(1, samples)


def spectrum_values(
    true_rank: int, spectrum: Sequence[float] | None, condition_number: float
) -> np.ndarray:
    """λ* as r* positive descending values: the given ones, or geometric from 1 to 1/κ."""
    if spectrum is None:
        kappa = validate.number("condition_number", condition_number)
        if kappa < 1:
            raise ValueError(f"condition_number must be >= 1; got {condition_number}")
        return np.geomspace(1.0, 1.0 / kappa, true_rank)
    given = validate.sequence("spectrum", spectrum, "numbers")
    values = np.array([validate.real("spectrum", value) for value in given], dtype=np.float64)
    if values.shape != (true_rank,):
        raise ValueError(
            f"spectrum must hold true_rank={true_rank} values; got {values.size} "
            f"of shape {values.shape}"
        )
    if not (np.isfinite(values).all() and (values > 0).all() and (np.diff(values) <= 0).all()):
        raise ValueError(f"spectrum must be finite, positive and descending; got {values.tolist()}")
    if condition_number != 1.0:
        raise ValueError("give either spectrum or condition_number, not both")
    return values


def _arguments(
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    spectrum: Sequence[float] | None,
    condition_number: float,
    seeds: Sequence[int],
    dtype: torch.dtype | str,
    device: torch.device | str,
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    validate.integer("d", d, least=1)
    validate.integer("k", k, least=1)
    validate.rank(true_rank, d=d, k=k, name="true_rank")
    validate.integer("samples", samples, least=1)
    like = torch.empty(0, dtype=validate.dtype(dtype), device=validate.device(device))
    values = torch.from_numpy(spectrum_values(true_rank, spectrum, condition_number)).to(like)
    separable("condition_number" if spectrum is None else "spectrum", values, d, k)
    return values, validate.seeds(seeds), like
