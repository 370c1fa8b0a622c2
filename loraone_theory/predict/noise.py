"""What label noise leaves at the end of training, and what one step of it costs.

σ is the standard deviation of one label's noise. All risks are excess risks, ½ tr(EᵀΣE), to first
order in σ: they hold while the noise's edge σ(√d + √k)/√N is small against λ*_{r*} (14 % low at
0.63 of it).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.predict import checks
from loraone_theory.problems.base import needed
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.operators import Completion
from loraone_theory.problems.sensing.problem import SensingProblem

Measured = LinearProblem | SensingProblem


def noise_floor(problem: Measured, *, noise_std: float) -> Tensor:
    """E risk of the best fit of rank r = r*, given what is measured: ½σ²tr((P_TKP_T)⁻¹)/m.

    K = 𝒜*𝒜/m and T the tangent space at Δ. In the linear model that is
    (σ²/2N)[r tr(ΣΣ̂⁻¹) + (k − r) tr(UᵀΣU(UᵀΣ̂U)⁻¹)], with Σ = I unless the problem has another.

    Args:
        problem: batch (...), with a known Δ; N >= d, or as many measurements as T has dimensions.
        noise_std: σ of one label.

    Returns:
        (...); infinite where some direction of T is not measured.

    Reference: derivations 1.5.
    """
    checks.measured(problem)
    sigma = validate.number("noise_std", noise_std)
    shift: Factors = needed(problem, "shift", "the noise floor")
    U, _, V = linalg.truncated_svd(shift, shift.rank)
    if isinstance(problem, LinearProblem):
        N = needed(problem, "samples", "the noise floor")
        values = problem.covariance.spectrum("all")
        low = values[..., 0] <= problem.d * linalg.eps(values) * values[..., -1]
        inverse, inner = _traces(problem, U, values)
        inverse = torch.where(low, torch.inf, inverse)
        r = shift.rank
        return sigma**2 / (2 * N) * (r * inverse + (problem.k - r) * inner)
    operator, m = problem.operator, problem.measurements
    columns = _on_tangent(operator.tangent, Factors(U, V.mT)) / m**0.5
    values = torch.linalg.svdvals(columns) ** 2
    rounding = columns.shape[-1] * linalg.eps(values) * values[..., :1]
    dof = columns.shape[-1]
    total = torch.where(values > rounding, 1 / values.clamp_min(1e-300), torch.inf).sum(-1)
    short = values.shape[-1] < dof
    measured = (sigma * operator.label_scale) ** 2 / (2 * m) * total
    return torch.full_like(measured, torch.inf) if short and sigma > 0 else measured


def _traces(problem: LinearProblem, U: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """tr(ΣΣ̂⁻¹) and tr(UᵀΣU(UᵀΣ̂U)⁻¹), shape (...)."""
    within, law = U.mT @ problem.covariance.apply(U), problem.population_covariance
    if law is None:
        return (1 / values).sum(-1), (1 / torch.linalg.eigvalsh(within)).sum(-1)
    eye = torch.eye(problem.d).to(U).expand(*values.shape[:-1], -1, -1)
    solved = torch.linalg.pinv(problem.covariance.apply(eye), hermitian=True) @ law.apply(eye)
    inner = torch.linalg.solve(within, U.mT @ law.apply(U))
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


def _stated(problem: Measured, noise_std: float | None) -> float:
    """σ as it is given; left out, it is 0, of labels without noise."""
    if noise_std is not None:
        return validate.number("noise_std", noise_std)
    if isinstance(problem, LinearProblem):
        noisy = problem.noise is not None
    else:
        noisy = problem.noise_std > 0
    if noisy:
        raise ValueError(
            "noise_std must be given where the labels have noise; got none; give the σ that they "
            "were drawn with"
        )
    return 0.0


def _samples_beyond(samples: int, d: int) -> int:
    N, d = validate.integer("samples", samples, least=1), validate.integer("d", d, least=1)
    if d + 1 >= N:
        raise ValueError(f"the mean is finite only for samples > d + 1; got samples={N} with d={d}")
    return N


def surplus(
    *, samples: int, d: int, k: int, rank: int, true_rank: int, noise_std: float, draws: int = 200
) -> float:
    """What r > r* adds to the mean floor: (σ²/2(N − d − 1))·E Σ_{i≤r−r*} s_i².

    s_i are the largest singular values of a (d − r*)×(k − r*) Gaussian matrix: the extra rank takes
    the top directions of the noise. Their mean is taken over `draws` matrices of fixed seeds. (The
    edge (√(d − r*) + √(k − r*))² for each s_i² overshoots.)

    Reference: derivations 1.5.
    """
    k = validate.integer("k", k, least=1)
    N, r = _samples_beyond(samples, d), validate.rank(rank, d=d, k=k)
    first = validate.rank_between("true_rank", true_rank, r)
    sigma, count = (
        validate.number("noise_std", noise_std),
        validate.integer("draws", draws, least=1),
    )
    if r == first:
        return 0.0
    source = torch.Generator().manual_seed(0)
    size = (count, d - first, k - first)
    values = torch.linalg.svdvals(torch.randn(size, generator=source, dtype=torch.float64))
    top = float((values[:, : r - first] ** 2).sum(-1).mean())
    return sigma**2 / (2 * (N - d - 1)) * top


def one_step_error(
    problem: Measured, *, noise_std: float | None = None, fourth_moment: float | None = None
) -> Tensor:
    """E‖A₀B₀ − Δ‖_F² of Spectral-init at r = r*, to first order: E‖P_T(G − Δ)‖_F².

    Per measurement, E⟨a, Δ⟩²‖P_T a‖² − ‖Δ‖², plus σ²·r(d + k − r) of the noise:
    linear and multi-response (d + 1)‖Δ‖²/N; dense (dof + 1)‖Δ‖²/m;
    rank-one [(r + 2)(d + k + 2 − r) − 1]‖Δ‖²/m;
    single-response [kΣ_j‖Δ_j‖²((d+2)t_j + (r+2)(1 − t_j)) − ‖Δ‖²]/m with t_j = ‖V_j‖²;
    completion [dkΣΔ_ij²t_ij − ‖Δ‖²]/m, t_ij = ‖U_i‖² + ‖V_j‖² − ‖U_i‖²‖V_j‖², times
    (dk − m)/(dk − 1) without replacement (told by m distinct entries).

    Args:
        problem: batch (...), with a known Δ.
        noise_std: σ of one label; 0 by default where the problem has no noise.
        fourth_moment: E z⁴ of i.i.d. inputs in the linear model, 3 (Gaussian) by default:
            d + 1 becomes d − 2 + E z⁴. On the sphere it counts as 1, of elliptic Student rows as
            (d + 2)(ν − 2)/(ν − 4) − d + 1.

    Returns:
        (...).

    Raises:
        ValueError: an ensemble without a formula; a Δ that is not known; labels with noise of a σ
            that is not given; inputs of a covariance Σ ≠ I, whose bias (Σ − I)Δ no sample size
            removes.

    Reference: derivations 1.6, 2.3, 3.1 of the sensing part.
    """
    checks.measured(problem)
    sigma = _stated(problem, noise_std)
    shift: Factors = needed(problem, "shift", "the one-step error")
    U, S, V = linalg.truncated_svd(shift, shift.rank)
    d, k, r = problem.d, problem.k, shift.rank
    dof, size = r * (d + k - r), (S**2).sum(-1)
    if isinstance(problem, LinearProblem):
        checks.isotropic(problem)
        N = needed(problem, "samples", "the one-step error")
        if fourth_moment is None and problem.input_law not in (None, "gaussian"):
            raise ValueError(
                f"fourth_moment must be given where the inputs are not Gaussian; got none with "
                f"{problem.input_law} inputs; give E z⁴, for example 1 of signs"
            )
        moment = 3.0 if fourth_moment is None else validate.number("fourth_moment", fourth_moment)
        return ((d - 2 + moment) * size + sigma**2 * dof) / N
    if fourth_moment is not None:
        raise ValueError("fourth_moment is one of the linear model's inputs; leave it out")
    m, columns = problem.measurements, (V**2).sum(-1)
    noise = (sigma * problem.operator.label_scale) ** 2 * dof / m
    name = problem.operator.name
    if name == "dense":
        return size * (dof + 1) / m + noise
    if name == "rank-one":
        return size * ((r + 2) * (d + k + 2 - r) - 1) / m + noise
    if name == "multi-response":
        return size * (d + 1) * k / m + noise
    if name == "single-response":
        heights = (S[..., None, :] ** 2 * V**2).sum(-1)  # ‖Δ_j‖²
        seen = (d + 2) * columns + (r + 2) * (1 - columns)
        return (k * (heights * seen).sum(-1) - size) / m + noise
    if name == "completion":
        return (_completion(U, S, V, columns, d * k) - size) / m * _left_out(problem) + noise
    raise ValueError(
        f"no first-order one-step error is known for the {name!r} ensemble; measure it"
    )


def _completion(U: Tensor, S: Tensor, V: Tensor, columns: Tensor, entries: int) -> Tensor:
    """dkΣΔ_ij²t_ij by r×r matrices: Σ_ij v_i w_j Δ_ij² = Σ(PᵀD_vP ∘ VᵀD_wV) for Δ = PVᵀ."""
    rows, left = (U**2).sum(-1), U * S[..., None, :]
    by_row, by_column = ((w[..., None] * M).mT @ M for w, M in ((rows, left), (columns, V)))
    seen = by_row * (V.mT @ V) + (left.mT @ left) * by_column - by_row * by_column
    return entries * seen.sum((-2, -1))


def _left_out(problem: SensingProblem) -> float:
    """(dk − m)/(dk − 1) where every measured entry is another one, else 1."""
    entries, m = problem.d * problem.k, problem.measurements
    operator = problem.operator
    if not (isinstance(operator, Completion) and operator.distinct):
        return 1.0
    return (entries - m) / max(entries - 1, 1)
