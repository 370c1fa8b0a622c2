"""7.1: the preconditioned flow forgets its error at the rate 2, whatever Δ is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import population
from loraone_theory.core.factors import Factors

D, K, SPECTRUM, RHO = 9, 7, (1.0, 0.4, 0.1), 0.3
END, PIECES = 1.5, 300


def _slope(at: Factors, target: Tensor) -> Factors:
    """−∇_A(BBᵀ)⁻¹ and −(AᵀA)⁻¹∇_B at Σ̂ = I."""
    E = at.A @ at.B - target
    left = torch.linalg.solve(at.B @ at.B.mT, at.B @ E.mT).mT
    right = torch.linalg.solve(at.A.mT @ at.A, at.A.mT @ E)
    return Factors(-left, -right)


def _moved(at: Factors, along: Factors, step: float) -> Factors:
    return Factors(at.A + step * along.A, at.B + step * along.B)


def _decay(draws: Draws, *, rate: float) -> Evidence:
    """‖E(t) − e^{−`rate`·t}E(0)‖/‖E(0)‖ by the Runge–Kutta method of order four."""
    of = population(D, K, torch.tensor(SPECTRUM, dtype=torch.float64), draws.seeds())
    target = of.problem.shift.dense()
    at = Factors(RHO**0.5 * of.balanced.A, RHO**0.5 * of.balanced.B)
    start, h = at.A @ at.B - target, END / PIECES
    for _ in range(PIECES):
        one = _slope(at, target)
        two = _slope(_moved(at, one, h / 2), target)
        three = _slope(_moved(at, two, h / 2), target)
        four = _slope(_moved(at, three, h), target)
        steps = [
            (a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(one, two, three, four, strict=True)
        ]
        at = _moved(at, Factors(*steps), h)
    norm = torch.linalg.matrix_norm
    gap = norm(at.A @ at.B - target - math.exp(-rate * END) * start) / norm(start)
    # A method of order four: h⁴ times derivatives of size (1/ρ)³ at the most, over the time.
    return Evidence(gap.numpy(), 0.0, tolerance=END * h**4 / RHO**3)


CLAIMS = (
    Claim(
        id="sensing/flow/preconditioned/continuous",
        title="Preconditioned flow",
        reference="derivations, sensing 7",
        statement="E(t) = e^{−2t}E(0) where col(E) ⊂ col(A) and row(E) ⊂ row(B), whatever κ is.",
        hypotheses=("Σ̂ = I", "r = r*", "a start on the pairs of Δ"),
        how=(
            f"By the Runge–Kutta method of order four to t = {END} in {PIECES} pieces, from "
            f"ρ = {RHO}; d = {D}, k = {K}, λ = {listed(SPECTRUM)}."
        ),
        kind="identity",
        measure=lambda draws: _decay(draws, rate=2.0),
        mutant_statement="e^{−2.1t}",
        mutant=lambda draws: _decay(draws, rate=2.1),
        trials=50,
        smoke_trials=5,
        derivation="sensing 7",
        uses=("sensing/flow/preconditioned",),
    ),
)
