"""What label noise leaves at the end of training.

σ is the standard deviation of one label's noise. All risks are excess risks, ½ tr(EᵀΣE), to first
order in σ: they hold while the noise's edge σ(√d + √k)/√N is small against λ*_{r*} (14 % low at
0.63 of it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.predict import checks
from loraone_theory.problems.base import needed
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.operators import MultiResponse
from loraone_theory.problems.sensing.problem import SensingProblem

Measured = LinearProblem | SensingProblem
# Means of singular values are taken over Gaussian matrices of so many numbers in all, and over as
# many matrices at least.
NUMBERS, FEWEST = 400_000, 200


def noise_floor(problem: Measured, *, noise_std: float, rank: int | None = None) -> Tensor:
    """E risk of the best fit of rank r >= r*, given what is measured, to first order in σ.

    At r = r*: ½σ²tr((P_TKP_T)⁻¹)/m with K = 𝒜*𝒜/m and T the tangent space at Δ; in the linear
    model (σ²/2N)[ra + (k − r)b], a = tr(ΣΣ̂⁻¹) and b = tr(UᵀΣU(UᵀΣ̂U)⁻¹), with Σ = I unless the
    problem has another. Beyond r*, in the linear model and of multi-response measurements, the fit
    takes the top of the noise off T too: (σ²/2N)·(a − b)/(d − r*)·E Σ_{i≤r−r*} s_i² more, s_i the
    singular values of a (d − r*)×(k − r*) Gaussian matrix. At r = min(d, k) it is least squares,
    ½σ²tr(K⁻¹)/m, whatever is measured.

    Args:
        problem: batch (...), with a known Δ; N >= d, or as many measurements as T has dimensions.
        noise_std: σ of one label.
        rank: r; r* by default.

    Returns:
        (...); infinite where some direction of T is not measured, and 0 at σ = 0.

    Raises:
        ValueError: r below r*, where a part of Δ is left whatever the noise is; r* < r < min(d, k)
            of other measurements, whose best fit of pure noise has no closed form.

    Reference: derivations of sensing, 1.5.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=6, k=5, true_rank=2, samples=10**5)
    >>> [round(float(noise_floor(problem, noise_std=1, rank=r)) * 2e5) for r in (2, 5)]
    [18, 30]
    """
    checks.measured(problem)
    sigma = validate.number("noise_std", noise_std)
    shift: Factors = needed(problem, "shift", "the noise floor")
    r = _rank_of_floor(problem, shift.rank, rank)
    if isinstance(problem, LinearProblem):
        return _linear_floor(problem, shift, sigma, r)
    if r > shift.rank and isinstance(problem.operator, MultiResponse):
        linear = LinearProblem.from_data(problem.operator.X, shift=shift)
        return _linear_floor(linear, shift, sigma, r)  # the same loss, at the same σ
    if not in_closed_form(problem, r):
        raise ValueError(
            f"rank must be r* or min(d, k) for {problem.operator.name!r} measurements; got "
            f"rank={r} with r*={shift.rank}: the best fit of noise has no closed form there; "
            "predict.best_fit has it for the labels at hand"
        )
    operator, m = problem.operator, problem.measurements
    if r > shift.rank:  # T is all of R^{d×k}
        U, V = (
            torch.eye(n, r).to(shift.A).expand(*problem.batch_shape, n, r) for n in shift.shape[-2:]
        )
    else:
        U, _, V = linalg.truncated_svd(shift, r)
    columns = _on_tangent(operator.tangent, Factors(U, V.mT)) / m**0.5
    values = torch.linalg.svdvals(columns) ** 2
    rounding = columns.shape[-1] * linalg.eps(values) * values[..., :1]
    dof = columns.shape[-1]
    total = torch.where(values > rounding, 1 / values.clamp_min(1e-300), torch.inf).sum(-1)
    short = values.shape[-1] < dof
    if short:
        total = torch.full_like(total, torch.inf)
    return _of_noise((sigma * operator.label_scale) ** 2 / (2 * m), total)


def _of_noise(share: float, total: Tensor) -> Tensor:
    """share·total, 0 without noise whatever is measured."""
    return share * total if share > 0 else torch.zeros_like(total)


def in_closed_form(problem: Measured, rank: int) -> bool:
    """Whether `noise_floor` has this rank: r* and min(d, k); r >= r* where 𝒜*𝒜/m = Σ̂ ⊗ I.

    >>> from loraone_theory.problems.sensing.sampling import sample_sensing
    >>> problem = sample_sensing(ensemble="dense", d=6, k=5, true_rank=2, measurements=200)
    >>> [in_closed_form(problem, rank) for rank in (1, 2, 3, 5)]
    [False, True, False, True]
    """
    checks.measured(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    first = needed(problem, "shift", "the noise floor").rank
    columns = isinstance(problem, LinearProblem) or isinstance(problem.operator, MultiResponse)
    return rank in (first, min(problem.d, problem.k)) or (rank >= first and columns)


def _rank_of_floor(problem: Measured, true_rank: int, rank: int | None) -> int:
    if rank is None:
        return true_rank
    r = validate.rank(rank, d=problem.d, k=problem.k)
    if r < true_rank:
        raise ValueError(
            f"rank must be at least r*, below which a part of the shift is left whatever the noise "
            f"is; got rank={r} with r*={true_rank}; predict.floor has the loss there"
        )
    return r


def _linear_floor(problem: LinearProblem, shift: Factors, sigma: float, rank: int) -> Tensor:
    U, _, _ = linalg.truncated_svd(shift, shift.rank)
    N = needed(problem, "samples", "the noise floor")
    values = problem.covariance.spectrum("all")
    low = values[..., 0] <= problem.d * linalg.eps(values) * values[..., -1]
    inverse, inner = _traces(problem, U, values)
    first = shift.rank
    total = first * inverse + (problem.k - first) * inner
    if rank > first:
        off = (problem.d - first, problem.k - first)
        total = total + (inverse - inner) / off[0] * _top_squares(off, rank - first)
    # With low the rest is rounding, or infinite too: unseen directions of U are in it.
    return _of_noise(sigma**2 / (2 * N), torch.where(low, torch.inf, total))


def _traces(problem: LinearProblem, U: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """tr(ΣΣ̂⁻¹) and tr(UᵀΣU(UᵀΣ̂U)⁻¹), shape (...)."""
    within, law = U.mT @ problem.covariance.apply(U), problem.population_covariance
    if law is None:
        return (1 / values).sum(-1), (1 / torch.linalg.eigvalsh(within)).sum(-1)
    eye = torch.eye(problem.d).to(U).expand(*values.shape[:-1], -1, -1)
    solved = torch.linalg.pinv(problem.covariance.apply(eye), hermitian=True) @ law.apply(eye)
    inner = torch.linalg.pinv(within, hermitian=True) @ (U.mT @ law.apply(U))
    found = [M.diagonal(dim1=-2, dim2=-1).sum(-1) for M in (solved, inner)]
    return found[0], found[1]


def _on_tangent(tangent: Callable[[Factors, Factors], Tensor], at: Factors) -> Tensor:
    """𝒜 on an orthonormal basis of {XVᵀ + UYᵀ}, shape (..., m, dof): X any, Y off V."""
    U, Vt = at
    (d, r), k = U.shape[-2:], Vt.shape[-1]
    complement = torch.linalg.qr(Vt.mT, mode="complete").Q[..., r:].mT  # (..., k − r, k)
    batch = torch.broadcast_shapes(U.shape[:-2], Vt.shape[:-2])
    ones = [1] * len(batch)
    X = torch.eye(d * r).to(U).reshape(d * r, *ones, d, r).expand(-1, *batch, d, r)
    Y = torch.eye(r * (k - r)).to(U).reshape(r * (k - r), *ones, r, k - r) @ complement
    parts = [tangent(at, Factors(X, torch.zeros_like(Vt).expand(len(X), *batch, r, k)))]
    if k > r:
        parts.append(tangent(at, Factors(torch.zeros_like(U).expand(len(Y), *batch, d, r), Y)))
    return torch.cat(parts).movedim(0, -1)


def mean_noise_floor(*, samples: int, d: int, k: int, rank: int, noise_std: float) -> float:
    """½σ²[rd/(N − d − 1) + (k − r)r/(N − r − 1)], the mean of `noise_floor` over Gaussian inputs.

    r = r*, N > d + 1; the same whatever Σ is, in which the risk is measured. Reference:
    derivations 1.5.

    >>> round(mean_noise_floor(samples=400, d=40, k=40, rank=2, noise_std=0.1), 6)
    0.002071
    """
    N = _samples_beyond(samples, d)
    k = validate.integer("k", k, least=1)
    r = validate.rank(rank, d=d, k=k)
    sigma = validate.number("noise_std", noise_std)
    return sigma**2 / 2 * (r * d / (N - d - 1) + (k - r) * r / (N - r - 1))


def mean_full_floor(*, samples: int, d: int, k: int, noise_std: float) -> float:
    """½σ²kd/(N − d − 1), the mean risk of full fine-tuning to the end, exact for Gaussian inputs
    of any covariance.

    Reference: derivations 1.5.

    >>> round(mean_full_floor(samples=400, d=40, k=40, noise_std=0.1), 5)
    0.02228
    """
    N = _samples_beyond(samples, d)
    sigma, k = validate.number("noise_std", noise_std), validate.integer("k", k, least=1)
    return sigma**2 / 2 * k * d / (N - d - 1)


def _samples_beyond(samples: int, d: int) -> int:
    N, d = validate.integer("samples", samples, least=1), validate.integer("d", d, least=1)
    if d + 1 >= N:
        raise ValueError(f"the mean is finite only for samples > d + 1; got samples={N} with d={d}")
    return N


def surplus(
    *, samples: int, d: int, k: int, rank: int, true_rank: int, noise_std: float, draws: int = 200
) -> float:
    """What r > r* adds to the mean floor: ½σ²(N − 1)/((N − d − 1)(N − r* − 1))·E Σ_{i≤r−r*} s_i².

    s_i are the largest singular values of a (d − r*)×(k − r*) Gaussian matrix: the extra rank takes
    the top directions of the noise. Their mean is taken over `draws` matrices of fixed seeds. (The
    edge (√(d − r*) + √(k − r*))² for each s_i² overshoots.)

    Reference: derivations of sensing, 1.5.
    """
    k = validate.integer("k", k, least=1)
    N, r = _samples_beyond(samples, d), validate.rank(rank, d=d, k=k)
    first = validate.rank_between("true_rank", true_rank, r)
    sigma = validate.number("noise_std", noise_std)
    count = validate.integer("draws", draws, least=1)
    top = _top_squares((d - first, k - first), r - first, count)
    return sigma**2 / 2 * (N - 1) / ((N - d - 1) * (N - first - 1)) * top


def _top_squares(shape: tuple[int, int], rank: int, draws: int | None = None) -> float:
    """E Σ_{i≤rank} s_i² of a Gaussian matrix, over that many of fixed seeds; exact for all s_i."""
    if rank == min(shape):
        return float(shape[0] * shape[1])
    return float((_singular_values(shape, draws)[:, :rank] ** 2).sum(-1).mean())


@lru_cache(maxsize=64)
def _singular_values(shape: tuple[int, int], draws: int | None) -> Tensor:
    source = torch.Generator().manual_seed(0)
    count = max(NUMBERS // (shape[0] * shape[1]), FEWEST) if draws is None else draws
    return torch.linalg.svdvals(torch.randn(count, *shape, generator=source, dtype=torch.float64))
