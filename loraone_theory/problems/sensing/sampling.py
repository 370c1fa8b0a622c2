"""Random instances of matrix sensing: one per seed, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.memory import refuse_beyond_memory
from loraone_theory.core.names import EnsembleName
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.problems.drawn import drawn
from loraone_theory.problems.linear.sampling import spectrum_values
from loraone_theory.problems.sensing.operators import OPERATORS
from loraone_theory.problems.sensing.problem import SensingProblem


@drawn
def sample_sensing(
    *,
    ensemble: EnsembleName | str,
    d: int,
    k: int,
    true_rank: int,
    measurements: int,
    noise_std: float = 0.0,
    replace: bool = True,
    spectrum: Sequence[float] | None = None,
    condition_number: float = 1.0,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
) -> SensingProblem:
    """Labels y_i = ⟨a_i, Δ⟩ + z_i of Δ = U diag(λ*) Vᵀ with Haar U and V, z_i i.i.d. N(0, σ²).

    Under the symmetric ensemble Δ = U diag(λ*) Uᵀ. A multi-response measurement is √k times a
    label, and so is its noise.

    Args:
        ensemble: "dense", "symmetric", "rank-one", "single-response", "multi-response" or
            "completion".
        d: rows of Δ.
        k: columns of Δ.
        true_rank: r*, 1 <= r* <= min(d, k).
        measurements: m >= 1, counted in scalars; a multiple of k for "multi-response".
        noise_std: σ >= 0 of one label.
        replace: whether completion may see an entry more than once.
        spectrum: λ*, r* positive values, descending. Default: geometric from 1 to
            1/condition_number.
        condition_number: κ >= 1 of the default spectrum.
        seeds: one instance per seed.
        dtype: float32 or float64; the draws are the same.
        device: where the tensors live; the draws are made on the CPU.

    Returns:
        A SensingProblem of batch shape (len(seeds),), without a W.

    Raises:
        ValueError: an argument that breaks a rule above, or more memory than the machine has.

    >>> problem = sample_sensing(ensemble="rank-one", d=6, k=5, true_rank=2, measurements=80)
    >>> problem.batch_shape, problem.measurements
    (torch.Size([1]), 80)
    """
    validate.choice("ensemble", ensemble, OPERATORS)
    validate.integer("d", d, least=1)
    validate.integer("k", k, least=1)
    validate.rank(true_rank, d=d, k=k, name="true_rank")
    validate.integer("measurements", measurements, least=1)
    sigma = validate.number("noise_std", noise_std)
    values = spectrum_values(true_rank, spectrum, condition_number)
    draws = validate.seeds(seeds)
    like = torch.empty(0, dtype=validate.dtype(dtype), device=validate.device(device))
    made = OPERATORS[ensemble]
    validate.flag("replace", replace)
    options: dict[str, Any] = {"replace": replace} if made.repeats else {}
    if not (made.repeats or replace):
        raise ValueError(
            f"replace=False applies to the completion ensemble; got it with {ensemble!r}; "
            "leave replace out"
        )
    if made.forms:
        refuse_beyond_memory(
            f"{measurements} matrices of {d} x {k}",
            3 * measurements * d * k * 8 * len(draws),
            "lower measurements, d or k, or use sample_dense_lazy",
        )
    operator = made.sample(d, k, measurements, draws, like, **options)
    symmetric = ensemble == "symmetric"
    shift = haar_shift(d, k, torch.from_numpy(values).to(like), draws, like, symmetric=symmetric)
    labels = operator.forward(shift)
    if sigma > 0:
        noise = per_seed(lambda rng: normal(rng, measurements), draws, "noise", like)
        labels = labels + sigma * operator.label_scale * noise
    return SensingProblem(
        operator,
        labels,
        shift,
        seeds=draws,
        ensemble=ensemble,
        noise_std=sigma,
    )


def haar_shift(
    d: int, k: int, values: Tensor, seeds: Sequence[int], like: Tensor, *, symmetric: bool = False
) -> Factors:
    """Δ = U diag(values) Vᵀ with Haar U and V, or U diag(values) Uᵀ, one per seed."""
    rank = len(values)
    U = per_seed(lambda rng: haar_frame(rng, d, rank), seeds, "left frame", like)
    if symmetric:
        return Factors(U * values, U.mT)
    V = per_seed(lambda rng: haar_frame(rng, k, rank), seeds, "right frame", like)
    return Factors(U * values, V.mT)
