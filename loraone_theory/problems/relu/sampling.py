"""Random ReLU instances: one per seed, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.given import separable
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem

ColumnLaw = Literal["gaussian", "orthonormal"]


@drawn
def sample_relu(
    *,
    d: int,
    k: int,
    true_rank: int,
    samples: int,
    relative_shift: float,
    condition_number: float = 1.0,
    columns: ColumnLaw = "gaussian",
    noise_std: float = 0.0,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> ReLUProblem:
    """Instances of the ReLU experiment on N samples with X i.i.d. N(0, 1).

    W, Δ and the other arguments are those of `sample_relu_population` with the same seeds.

    Args:
        samples: N, the number of rows of X.
        noise_std: σ >= 0 of the labels, Y = relu(X(W + Δ)) + Z. The loss at Δ is then σ²k/2 in
            the mean, and the risk stays that of clean labels.

    Returns:
        A ReLUProblem of batch shape (len(seeds),).

    Raises:
        ValueError: a size, a rank or a number that breaks the rules.

    >>> problem = sample_relu(d=6, k=5, true_rank=2, samples=40, relative_shift=0.1, seeds=(0, 1))
    >>> problem.batch_shape, problem.samples
    (torch.Size([2]), 40)
    """
    validate.integer("samples", samples, least=1)
    population = sample_relu_population(
        d=d,
        k=k,
        true_rank=true_rank,
        relative_shift=relative_shift,
        condition_number=condition_number,
        columns=columns,
        seeds=seeds,
        dtype=dtype,
        device=device,
    )
    draws = validate.seeds(seeds)
    memory.refuse_beyond_memory(
        f"X (N × d) of {len(draws)} instances, N = {samples}, d = {d},",
        8 * len(draws) * samples * d,
        "lower the sizes or the number of seeds, or use sample_relu_population, N = ∞",
    )
    X = per_seed(lambda rng: normal(rng, samples, d), draws, "inputs", population.like)
    sigma = validate.number("noise_std", noise_std)
    if sigma == 0:
        return ReLUProblem(X, population, input_law="gaussian")
    Z = sigma * per_seed(lambda rng: normal(rng, samples, k), draws, "noise", population.like)
    return ReLUProblem(X, population, input_law="gaussian", noise=Z, noise_std=sigma)


@drawn
def sample_relu_population(
    *,
    d: int,
    k: int,
    true_rank: int,
    relative_shift: float,
    condition_number: float = 1.0,
    columns: ColumnLaw = "gaussian",
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> ReLUPopulation:
    """Instances of the ReLU experiment at N = ∞: unit columns of W, Δ = U S Vᵀ.

    U and V are Haar-distributed, S is geometric from κ to 1 up to a factor that makes
    max_m ‖Δ_m‖/‖w_m‖ the given relative shift. Only these ratios matter: (W, Δ) → σ(W, Δ) gives
    the same relative errors.

    Args:
        d: input width.
        k: output width.
        true_rank: r*, 1 <= r* <= min(d, k).
        relative_shift: c = max_m ‖Δ_m‖/‖w_m‖ > 0.
        condition_number: κ = λ₁*/λ*_{r*} >= 1.
        columns: "gaussian", independent uniform directions, or "orthonormal", a Haar frame, which
            needs k <= d.
        seeds: one instance per seed.
        dtype: float32 or float64; the draws are the same.
        device: where the tensors live; the draws are made on the CPU.

    Returns:
        A ReLUPopulation of batch shape (len(seeds),).

    Raises:
        ValueError: a size, a rank or a number that breaks the rules above.

    >>> problem = sample_relu_population(d=6, k=5, true_rank=2, relative_shift=0.1, seeds=(0, 1))
    >>> problem.relative_shift
    tensor([0.1000, 0.1000], dtype=torch.float64)
    """
    validate.integer("d", d, least=1)
    validate.integer("k", k, least=1)
    validate.rank(true_rank, d=d, k=k, name="true_rank")
    validate.choice("columns", columns, ("gaussian", "orthonormal"))
    if columns == "orthonormal" and k > d:
        raise ValueError(
            f"orthonormal columns need k <= d; got k={k} with d={d}; use columns='gaussian'"
        )
    shift_size = validate.number("relative_shift", relative_shift, positive=True)
    kappa = validate.number("condition_number", condition_number)
    if kappa < 1:
        raise ValueError(f"condition_number must be >= 1; got {condition_number}")
    like = torch.empty(0, dtype=validate.dtype(dtype), device=validate.device(device))
    draws = validate.seeds(seeds)
    memory.refuse_beyond_memory(
        f"W (d × k) of {len(draws)} instances, d = {d}, k = {k},",
        8 * len(draws) * (d * k + (d + k) * true_rank),
        "lower the sizes or the number of seeds",
    )
    S = np.geomspace(kappa, 1.0, true_rank)
    separable("condition_number", torch.from_numpy(S).to(like), d, k)

    def weight(rng: np.random.Generator) -> np.ndarray:
        if columns == "orthonormal":
            return haar_frame(rng, d, k)
        W = normal(rng, d, k)
        return W / np.linalg.norm(W, axis=0)

    def right_factor(rng: np.random.Generator) -> np.ndarray:
        B = S[:, None] * haar_frame(rng, k, true_rank).T
        return B * (shift_size / np.linalg.norm(B, axis=0).max())

    W = per_seed(weight, draws, "pretrained", like)
    U = per_seed(lambda rng: haar_frame(rng, d, true_rank), draws, "left frame", like)
    B: Tensor = per_seed(right_factor, draws, "right frame", like)
    return ReLUPopulation(pretrained=W, shift=Factors(U, B), seeds=draws)
