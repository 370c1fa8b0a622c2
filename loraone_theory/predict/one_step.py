"""How far one step from zero is off, to first order, for every ensemble."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.predict import checks
from loraone_theory.problems.base import needed
from loraone_theory.problems.linear.covariance import Covariance
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.operators import Completion
from loraone_theory.problems.sensing.problem import SensingProblem

Measured = LinearProblem | SensingProblem
# Laws of z that no rotation changes, so that E[zzᵀMzzᵀ] = ρ(M + Mᵀ + tr(M)I); of the others z has
# independent entries.
ROUND = ("sphere", "elliptic")


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

    Linear with inputs of a covariance Σ: ‖(Σ − I)Δ‖², which no number of samples removes, and
    1/N times tr Σ·tr(ΔᵀΣΔ) + ‖ΣΔ‖² of the samples and, with P the projection on ΣU,
    σ²[r tr Σ + (k − r)tr(PΣ) + 2(k − r)⟨(Σ − I)Δ, (I − P)Σ(ΣΔ)^{+T}⟩] of the noise. The last term
    is of second order in G and meets the bias; without noise all of it is exact, as G has rank r*.

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
            that is not given.

    Reference: derivations 1.6, 2.3, 3.1 of the sensing part.
    """
    checks.measured(problem)
    sigma = _stated(problem, noise_std)
    shift: Factors = needed(problem, "shift", "the one-step error")
    U, S, V = linalg.truncated_svd(shift, shift.rank)
    d, k, r = problem.d, problem.k, shift.rank
    dof, size = r * (d + k - r), (S**2).sum(-1)
    if isinstance(problem, LinearProblem):
        N = needed(problem, "samples", "the one-step error")
        moment = _moment(problem, fourth_moment)
        law = problem.population_covariance
        if law is not None:
            bias, rest = _coloured(law, problem, U * S[..., None, :], sigma, moment)
            return bias + rest / N
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


def _moment(problem: LinearProblem, given: float | None) -> float:
    """E z⁴ as it is given; left out, it is 3, of Gaussian inputs."""
    if given is not None:
        return validate.number("fourth_moment", given)
    if problem.input_law not in (None, "gaussian"):
        raise ValueError(
            f"fourth_moment must be given where the inputs are not Gaussian; got none with "
            f"{problem.input_law} inputs; give E z⁴, for example 1 of signs"
        )
    return 3.0


def _coloured(
    law: Covariance, problem: LinearProblem, left: Tensor, sigma: float, moment: float
) -> tuple[Tensor, Tensor]:
    """At Σ ≠ I, of Δ = `left`Vᵀ with orthonormal V: ‖(Σ − I)Δ‖², and N times the rest."""
    k, r, image = problem.k, left.shape[-1], law.apply(left)  # ΣΔV
    bias, (Q, R) = image - left, torch.linalg.qr(image)
    trace = law.spectrum("all").sum(-1)
    seen = r * trace + (k - r) * _inner(Q, law.apply(Q))
    # (ΣΔ)^{+T}V = QR^{−T} for ΣΔV = QR, and of Σ times it the part off ΣU.
    turned = law.apply(torch.linalg.solve_triangular(R.mT, Q, upper=False, left=False))
    bent = 2 * (k - r) * _inner(bias, turned - Q @ (Q.mT @ turned))
    samples = _of_samples(law, problem.input_law, left, image, trace, moment)
    return _inner(bias, bias), samples + sigma**2 * (seen + bent)


def _of_samples(
    law: Covariance, name: str | None, left: Tensor, image: Tensor, trace: Tensor, moment: float
) -> Tensor:
    """N·E‖(Σ̂ − Σ)Δ‖² = E‖x‖²‖Δᵀx‖² − ‖ΣΔ‖², x = Σ^{1/2}z with the root that inputs are made by."""
    through, whole = trace * _inner(left, image), _inner(image, image)
    if name in ROUND:
        d = left.shape[-2]
        return (d - 1 + moment) / (d + 2) * (through + 2 * whole) - whole
    half = law.half(left)  # rows λ_i^{1/2}q_iᵀΔV
    entries = _inner(half, law.half(law.half_transposed(half)))  # Σ_i λ_i²‖q_iᵀΔ‖²
    return through + whole + (moment - 3) * entries


def _inner(M: Tensor, other: Tensor) -> Tensor:
    return (M * other).sum((-2, -1))
