"""2: how far one step from zero is off where the inputs have a covariance.

Both means are taken exactly, on finitely many points: over Gaussian rows by a law with the same
moments, over small noise by second differences along each of its entries.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import LIKE
from loraone_theory.claims.sensing.base import EPS, best
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, SAMPLES = 4, 8, 2
LAW = (2.0, 1.0, 0.5, 0.2)
# Points with the moments of N(0, 1) up to the fifth, and their probabilities.
POINTS, CHANCES = (-math.sqrt(3), 0.0, math.sqrt(3)), (1 / 6, 2 / 3, 1 / 6)
# Differences are as long as this share of the radius on which A₀B₀ is analytic in them. What they
# leave out is its square, and rounding over its square.
SHARE = 2.0**-11
# Operations on the way to one error, by an SVD that is backward stable.
OPERATIONS = 100


def _drawn(draws: Draws) -> LinearProblem:
    return sample_linear(
        d=D, k=K, true_rank=1, samples=SAMPLES, covariance=LIKE.new_tensor(LAW), seeds=draws.seeds()
    )


def _square(M: Tensor) -> Tensor:
    return M.square().sum((-2, -1))


def _error(problem: LinearProblem, shift: Tensor) -> Tensor:
    """‖A₀B₀ − Δ‖² of Spectral-init at r = r* = 1."""
    return _square(best(problem.one_step_gradient().dense(), 1) - shift)


@functools.cache
def _rows() -> tuple[Tensor, Tensor]:
    """All X of N rows x = Σ^{1/2}z with entries of z among POINTS, and their probabilities."""
    z = np.array(list(itertools.product(POINTS, repeat=SAMPLES * D))).reshape(-1, SAMPLES, D)
    chances = np.array(list(itertools.product(CHANCES, repeat=SAMPLES * D))).prod(-1)
    return torch.from_numpy(z * np.sqrt(LAW)), torch.from_numpy(chances)


def _samples(draws: Draws, *, extra: float) -> Evidence:
    """E‖A₀B₀ − Δ‖² without noise, over X of few points."""
    problem, law = _drawn(draws), LIKE.new_tensor(LAW)[:, None]
    promised = predict.one_step_error(problem)
    (X, chances), shifts = _rows(), problem.shift.dense()
    promised = promised - (1 - extra) * _square(law * shifts) / SAMPLES
    found = [chances @ _square(best(X.mT @ (X @ shift) / SAMPLES, 1) - shift) for shift in shifts]
    # A sum over so many points of what is positive.
    wrong = (len(chances) + OPERATIONS) * EPS * promised
    return Evidence(torch.stack(found).numpy(), promised.numpy(), tolerance=wrong.numpy())


def _noise(draws: Draws, *, bent: bool) -> Evidence:
    """N/σ² times what noise adds to E‖A₀B₀ − Δ‖² where Σ̂ = Σ, to second order in σ."""
    problem, law = _drawn(draws), LIKE.new_tensor(LAW)
    promised = predict.one_step_error(problem, noise_std=1.0) - predict.one_step_error(problem)
    promised, shifts = SAMPLES * promised, problem.shift.dense()
    image = law[:, None] * shifts
    size = _square(image).sqrt()  # σ₁(ΣΔ)
    if not bent:
        along = (law[:, None] * image.square()).sum((-2, -1)) / size**2  # tr(PΣ) at rank one
        promised = law.sum() + (K - 1) * along
    found, allowed = zip(*map(_differences, shifts, size), strict=True)
    return Evidence(
        torch.stack(found).numpy(), promised.numpy(), tolerance=torch.stack(allowed).numpy()
    )


def _differences(shift: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """N/σ² times what noise adds, and how wrong that may be: derivations, "One step ...".

    On d rows with XᵀX/d = Σ an entry (i, j) of Z/√d moves G by Σ^{1/2}e_ie_jᵀ.
    """
    root = LIKE.new_tensor(LAW).sqrt()
    X, radius = D**0.5 * torch.diag(root), size / (4 * root)
    length = SHARE * radius
    moves = torch.zeros(D, K, D, K).to(LIKE)
    for i, j in itertools.product(range(D), range(K)):
        moves[i, j, i, j] = length[i]
    Z = D**0.5 * torch.cat([moves.flatten(0, 1), -moves.flatten(0, 1), torch.zeros(1, D, K)])
    error = _error(LinearProblem.from_data(X.expand(len(Z), D, D), labels=X @ shift + Z), shift)
    ahead, behind = error[:-1].unflatten(0, (2, D, K))
    found = ((ahead + behind - 2 * error[-1]) / (2 * length[:, None] ** 2)).sum()
    most = (5 * size + shift.norm()) ** 2  # |‖A₀B₀ − Δ‖²| on the disc of that radius
    share = SHARE**2 / (1 - SHARE**2) + 2 * OPERATIONS * EPS / SHARE**2
    return found, K * most * share * (radius**-2).sum()


_SIZES = f"Σ = diag({listed(LAW)}), d = {D}, k = {K}, Δ of rank one"

CLAIMS = (
    Claim(
        id="sensing/covariance/one-step",
        title="One-step error under a covariance",
        reference="derivations, sensing 2",
        statement=(
            "E‖A₀B₀ − Δ‖² = ‖(Σ − I)Δ‖² + [tr Σ·tr(ΔᵀΣΔ) + ‖ΣΔ‖²]/N, exactly: the second term is "
            "E‖(Σ̂ − Σ)Δ‖²."
        ),
        hypotheses=("linear model", "x ~ N(0, Σ)", "r = r*", "no noise"),
        how=(
            "A mean over rows whose entries have the moments of Gaussian ones up to the fifth, on "
            f"{len(POINTS)} points each: the error is of degree four in them. {_SIZES}, "
            f"N = {SAMPLES}; to rounding."
        ),
        kind="identity",
        measure=lambda draws: _samples(draws, extra=1.0),
        mutant_statement="without ‖ΣΔ‖²",
        mutant=lambda draws: _samples(draws, extra=0.0),
        trials=20,
        smoke_trials=2,
        derivation="sensing 2",
    ),
    Claim(
        id="sensing/covariance/one-step/noise",
        title="What noise adds to one step under a covariance",
        reference="derivations, sensing 2",
        statement=(
            "Where Σ̂ = Σ, which is the limit N ≫ d, label noise adds σ²/N·[r tr Σ + (k − r)tr(PΣ) "
            "+ 2(k − r)⟨(Σ − I)Δ, (I − P)Σ(ΣΔ)^{+T}⟩] to it, to second order in σ, P the "
            "projection on ΣU."
        ),
        hypotheses=("linear model", "Σ̂ = Σ", "r = r*", "σ → 0"),
        how=(
            "The mean over noise as second differences along each entry of Z, on d rows with "
            f"XᵀX/d = Σ; {_SIZES}; to the fourth order by Cauchy's estimate on the disc where the "
            "leading singular value of G stays apart, and rounding."
        ),
        kind="identity",
        measure=lambda draws: _noise(draws, bent=True),
        mutant_statement="without the last term",
        mutant=lambda draws: _noise(draws, bent=False),
        trials=100,
        smoke_trials=5,
        derivation="sensing 2",
        uses=("sensing/covariance/one-step", "sensing/equivalence"),
    ),
)
