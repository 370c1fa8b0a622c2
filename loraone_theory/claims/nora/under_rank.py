"""Below the true rank: the rates of simultaneous and of alternating steps, set by the gap."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, gaussian, population
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate

D, RANK, START, STEPS = 10, 2, 0.05, 220
GAPS, RATES = (0.9, 0.7), (0.5, 0.8)
LOW, HIGH = 1e-10, 1e-5
# Of a rate: other modes of the start fall at least 1.5 times as fast, from below HIGH·1e3.
ALLOWED = 2e-3


def _simultaneous(eta: float, g: float) -> float:
    return max(1 - eta * (1 - g), abs(1 - 2 * eta)) ** 2


def _alternating(eta: float, g: float) -> float:
    M = np.array([[1 - eta, eta * g], [eta * g * (1 - eta), 1 - eta + (eta * g) ** 2]])
    return float(np.abs(np.linalg.eigvals(M)).max() ** 2)


def _spectrum(g: float) -> Tensor:
    return torch.tensor([4.0, 1.0, g, 0.1 * g], dtype=torch.float64)


def _rates(draws: Draws, *, alternating: bool, power: int = 1) -> Evidence:
    """The factor a step of ½‖E‖² − ½Σ_{i>r}σ_i² over the promised one."""
    method = "p-lora-alternating" if alternating else "p-lora"
    law = _alternating if alternating else _simultaneous
    found = []
    for block, g in enumerate(GAPS):
        seeds, S = draws.seeds(block=block), _spectrum(g)
        of = population(D, D, S, seeds)
        at = Factors(of.balanced.A[..., :RANK], of.balanced.B[..., :RANK, :])
        # Along the pair of modes at the gap, and a little along those inside.
        root, X = S[RANK - 1].sqrt(), gaussian(RANK, RANK, seeds, "X")
        moves = START * root * (1 + 0.1 * gaussian(2, 1, seeds, "Y")[..., None])
        last = torch.eye(RANK, dtype=torch.float64)[RANK - 1]
        out = of.U[..., RANK, None] * last, last[:, None] * of.V[..., None, :, RANK]
        inside = START**2 * X
        start = Factors(
            at.A + moves[:, 0] * out[0] + at.A @ inside,
            at.B + moves[:, 1] * out[1] + inside @ at.B,
        )
        tail = 0.5 * float(S[RANK:].square().sum())
        for eta in RATES[:1] if draws.smoke else RATES:
            run = simulate(
                of.problem, method, rank=RANK, learning_rate=eta, steps=STEPS, initial=start,
                record=("risk",),
            )  # fmt: skip
            rate = stats.decay_rate(run["risk"].numpy() - tail, low=LOW, high=HIGH)
            found.append(rate / law(eta, g**power))
    return Evidence(np.concatenate(found), 1.0, tolerance=ALLOWED + 4 * D * EPS / LOW)


def _claim(id: str, title: str, statement: str, uses: str, *, alternating: bool) -> Claim:
    return Claim(
        id=id,
        title=title,
        reference="derivations, neighbours 3",
        statement=statement,
        hypotheses=("𝒜 = I", "r < r*", "AB near the best approximation of rank r"),
        how=(
            f"Factor a step of ½‖E‖² − ½Σ_{{i>r}}σ_i² between {HIGH:g} and {LOW:g}; d = k = {D}, "
            f"r = {RANK}, g = {listed(GAPS)}, η = {listed(RATES)}."
        ),
        kind="identity",
        measure=lambda draws: _rates(draws, alternating=alternating),
        mutant_statement="g² in place of g",
        mutant=lambda draws: _rates(draws, alternating=alternating, power=2),
        trials=10,
        smoke_trials=2,
        derivation="neighbours 3",
        uses=(uses,),
    )


CLAIMS = (
    _claim(
        "nora/under-rank",
        "Below the true rank, simultaneous steps",
        "The excess loss falls by max(1 − η(1 − g), |1 − 2η|)² a step, g = σ_{r+1}/σ_r.",
        "scaled-gd/factorisation/edge",
        alternating=False,
    ),
    _claim(
        "nora/under-rank/alternating",
        "Below the true rank, alternating steps",
        "It falls by ρ(M)², M = [[1 − η, ηg], [ηg(1 − η), 1 − η + η²g²]]: g⁴ at η = 1.",
        "nora/under-rank",
        alternating=True,
    ),
)
