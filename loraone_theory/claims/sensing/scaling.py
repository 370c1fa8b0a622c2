"""2: the multiple of the one-step gradient that is nearest to Δ where inputs are not isotropic."""

from __future__ import annotations

import torch

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import LIKE, haar
from loraone_theory.claims.sensing.base import EPS, half_square
from loraone_theory.core.factors import Factors
from loraone_theory.methods.gradient import lora_one
from loraone_theory.predict.scaling import Of
from loraone_theory.problems.linear.problem import LinearProblem

D, K, RANK, SPIKES = 9, 6, 2, (1.6, 1.3, 0.7)
TRIED = (0.5, 1.0, 1.5)


def _least(draws: Draws, of: Of, *, power: int) -> Evidence:
    """Where the parabola through three starts is least, and `best_gamma`.

    Against tr(ΔᵀΣ^pΔ)/tr(ΔᵀΣ^{p+1}Δ), p = `power`.
    """
    law = LIKE.new_ones(D)
    law[: len(SPIKES)] = LIKE.new_tensor(SPIKES)
    U, V = (haar(n, RANK, draws.seeds(), name) for n, name in ((D, "U"), (K, "V")))
    problem = LinearProblem.population(shift=Factors(U, V.mT), covariance=law)
    values = []
    for gamma in TRIED:
        at = Factors(*lora_one(gamma=gamma).init(problem, RANK, draws.seeds()).trainable)
        E = problem.residual(at)
        values.append(problem.risk(at) if of == "risk" else half_square(E))
    low, middle, high = values
    step = TRIED[1] - TRIED[0]
    found = TRIED[1] + step * (low - high) / (2 * (low - 2 * middle + high))
    squares = problem.shift.dense().square().sum(-1)
    sums = [(law**p * squares).sum(-1) for p in (power, power + 1)]
    # Values of size one after an SVD, and a second difference of them of a quarter at least.
    return Evidence(
        torch.cat([found, predict.best_gamma(problem, of=of)]).numpy(),
        (sums[0] / sums[1]).repeat(2).numpy(),
        tolerance=1e3 * D * EPS,
    )


def _claim(of: Of) -> Claim:
    risk = of == "risk"
    best, other = "tr(ΔᵀΣ²Δ)/tr(ΔᵀΣ³Δ)", "⟨ΣΔ, Δ⟩/‖ΣΔ‖²"
    if not risk:
        best, other = other, best
    power = 2 if risk else 1
    return Claim(
        id=f"sensing/best-gamma{'' if risk else '/error'}",
        title=f"The multiple of G of the least {of}",
        reference="derivations, sensing 2",
        statement=(
            f"In the population the start γG has the least {'risk' if risk else '‖E‖²'} at "
            f"γ = {best}."
        ),
        hypotheses=("linear model", "N = ∞", "r >= r*", "Spectral-init"),
        how=(
            f"The parabola through the starts at γ = {listed(TRIED)}, and what is predicted; "
            f"Σ = diag({listed(SPIKES)}, then ones), d = {D}, k = {K}, r = r* = {RANK}."
        ),
        kind="identity",
        measure=lambda draws: _least(draws, of, power=power),
        mutant_statement=f"{other}, that of the least {'‖E‖²' if risk else 'risk'}",
        mutant=lambda draws: _least(draws, of, power=3 - power),
        trials=100,
        smoke_trials=6,
        derivation="sensing 2",
        uses=("sensing/covariance",) if risk else (),
    )


CLAIMS = (_claim("risk"), _claim("error"))
