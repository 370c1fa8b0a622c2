"""What the ReLU model is predicted to do: local rates, the first error, floors and slow laws.

Every rate is the factor that ‖E‖_F shrinks by in one step near the end of a run of
preconditioned GD from Spectral-init, unless said otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loraone_theory.core import validate

# The sampling noise of A₀B₀, relative to √(d/N)·‖Δ‖_F: close to 1, and measured, not derived.
SAMPLING_FACTOR = 1.1


def envelope(learning_rate: float) -> float:
    """1 − η/4, the rate that Theorem 4.2 guarantees.

    >>> envelope(0.5)
    0.875
    """
    return 1 - validate.number("learning_rate", learning_rate, positive=True) / 4


def population_rate(learning_rate: float) -> float:
    """max(1 − η/2, |1 − η|), the rate at N = ∞ and r = r*, whatever the condition number.

    Near Δ the gradient is J ≈ ½E, so the tangent directions contract by 1 − η/2, or by 1 − η where
    both factors move them. The best η is 4/3; from η = 2 on nothing contracts. Reference:
    derivations 5.4.

    >>> population_rate(0.5), population_rate(1.5)
    (0.75, 0.5)
    """
    eta = validate.number("learning_rate", learning_rate, positive=True)
    return max(1 - eta / 2, abs(1 - eta))


def finite_rate(learning_rate: float, *, samples: int, d: int, concentrated: bool = False) -> float:
    """1 − (η/2)(1 − √(d/N))², the rate on N > d samples at r = r*, for Δ spread over many outputs.

    The slowest direction sees the smallest eigenvalue of a sample covariance, at the
    Marchenko–Pastur edge. It exceeds 1 − η/4 for N/d < (1 − 1/√2)⁻² ≈ 11.7.

    It leaves out fluctuations of relative size max_m ‖V_m‖ (V the right singular vectors of Δ,
    about √(r*/k)), which slow runs down: with few outputs, or Δ in few of them, the rate lies
    above this one and towards that of `concentrated`, 1 − (η/2)(1 − √(2d/N))², where a single
    column, or one mask for all, sees only half of the samples. At k = 1 and N = 16 d, η = ½, runs
    contract by 0.88 to 0.90 a step; the two formulas give 0.859 and 0.896.

    Args:
        learning_rate: η.
        samples: N > d, or > 2d where `concentrated`.
        d: input width.
        concentrated: Δ lives in one output, or all outputs share their masks.

    Reference: derivations 5.4.

    >>> finite_rate(0.5, samples=1600, d=100)
    0.859375
    >>> round(finite_rate(0.5, samples=1600, d=100, concentrated=True), 4)
    0.8955
    """
    eta = validate.number("learning_rate", learning_rate, positive=True)
    N, width = validate.integer("samples", samples, least=1), validate.integer("d", d, least=1)
    validate.flag("concentrated", concentrated)
    least = 2 * width if concentrated else width
    if least >= N:
        rule = "2 d where Δ is in one output" if concentrated else "d"
        raise ValueError(
            f"the error contracts only for samples > {rule}; got samples={N} with d={width}"
        )
    return 1 - eta / 2 * (1 - math.sqrt(least / N)) ** 2


def gd_rate(learning_rate: float, *, condition_number: float) -> float:
    """1 − η/(2κ), the rate of plain GD with step η/λ₁* at N = ∞ and r = r*.

    Reference: derivations 5.4.

    >>> gd_rate(0.5, condition_number=10.0)
    0.975
    """
    eta = validate.number("learning_rate", learning_rate, positive=True)
    kappa = validate.number("condition_number", condition_number)
    if kappa < 1:
        raise ValueError(f"condition_number must be >= 1; got condition_number={kappa:g}")
    return 1 - eta / (2 * kappa)


def first_error(
    relative_shift: float,
    concentration: float,
    *,
    samples: int | None = None,
    d: int | None = None,
) -> float:
    """ρ₀ = ‖A₀B₀ − Δ‖_F/λ*_{r*} ≈ F √((1.1)² d/N + (c/π)²) at Spectral-init with γ = 2.

    c/π is the bias of the one-step gradient where every Δ_m is orthogonal to w_m and of relative
    size c, so an upper estimate; the first term vanishes at N = ∞. Lemma D.5 asks for ρ₀ <= 1/20.
    Reference: derivations 5.3.

    Args:
        relative_shift: c = max_m ‖Δ_m‖/‖w_m‖.
        concentration: F = ‖Δ‖_F/λ*_{r*}.
        samples: N, with d; None for N = ∞.
        d: input width.

    >>> round(first_error(0.1 * math.pi, 2.0), 12)
    0.2
    """
    c = validate.number("relative_shift", relative_shift)
    F = validate.number("concentration", concentration, positive=True)
    if (samples is None) != (d is None):
        raise ValueError(
            f"samples and d go together; got samples={samples}, d={d}; give both or none"
        )
    noise = 0.0
    if samples is not None:
        N, width = validate.integer("samples", samples, least=1), validate.integer("d", d, least=1)
        noise = SAMPLING_FACTOR**2 * width / N
    return F * math.sqrt(noise + (c / math.pi) ** 2)


def sublinear(
    learning_rate: float, *, damping: float, rank: int, true_rank: int, t: int | Tensor
) -> float | Tensor:
    """‖E_t‖_F ≈ √(r − r*) λ/(ηt): fixed damping λ and r > r*, for large t.

    A superfluous direction of AB with singular value σ has J ≈ −½σ and shrinks by
    σ⁺ ≈ σ − ησ²/(σ + λ); once σ ≪ λ that is σ_t ≈ λ/(ηt). It holds while σ_t is large against
    the imbalance a² − b² of the direction's two factors, which this slow phase conserves; after
    that the smaller factor dies out and the decay is exponential. Reference: derivations 5.5.

    >>> sublinear(0.5, damping=1e-3, rank=8, true_rank=4, t=1000)
    4e-06
    """
    eta = validate.number("learning_rate", learning_rate, positive=True)
    lam = validate.number("damping", damping, positive=True)
    validate.integer("rank", rank, least=validate.integer("true_rank", true_rank, least=1))
    if isinstance(t, Tensor):
        t = validate.tensor("t", t, least_dims=0, integers=True)
        if not bool((t > 0).all()):
            raise ValueError(f"t must be > 0; got {t.flatten().tolist()[:8]}")
    else:
        validate.integer("t", t, least=1)
    return math.sqrt(rank - true_rank) * lam / (eta * t)


def deficient_floor(spectrum: Tensor, rank: int) -> Tensor:
    """√(Σ_{i>r} λ_i²), the Eckart–Young distance of Δ from rank r, shape (...).

    Runs with r < r* end at this times 1 + δ with δ small. Reference: derivations 5.6.

    Args:
        spectrum: (..., r*) singular values of Δ, descending.
        rank: r.

    >>> deficient_floor(torch.tensor([5.0, 4.0, 3.0]), 1)
    tensor(5.)
    """
    validate.integer("rank", rank, least=1)
    return torch.linalg.vector_norm(_descending(spectrum)[..., rank:], dim=-1)


def _descending(spectrum: Tensor) -> Tensor:
    values = validate.tensor("spectrum", spectrum, least_dims=1)
    if not bool((values >= 0).all()) or not bool((values.diff(dim=-1) <= 0).all()):
        raise ValueError(
            "spectrum must be >= 0 and descending; "
            f"got {values.flatten().tolist()[:8]}; sort it, largest first"
        )
    return values


def deficient_rate(learning_rate: float, spectrum: Tensor, rank: int) -> Tensor:
    """1 − (η/2)(1 − λ_{r+1}/λ_r), the rate of the approach to the floor for r < r*, shape (...).

    It is that of ‖A_tB_t − its limit‖_F: the last thing to settle is the rotation of the learned
    subspace towards the top one. Reference: derivations 5.6.

    >>> deficient_rate(0.5, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 2)
    tensor(0.8750, dtype=torch.float64)
    """
    eta = validate.number("learning_rate", learning_rate, positive=True)
    rank, spectrum = validate.integer("rank", rank, least=1), _descending(spectrum)
    if rank >= spectrum.shape[-1]:
        raise ValueError(
            f"the floor is positive only for rank < true_rank; got rank={rank} with "
            f"{spectrum.shape[-1]} singular values; use population_rate"
        )
    return 1 - eta / 2 * (1 - spectrum[..., rank] / spectrum[..., rank - 1])
