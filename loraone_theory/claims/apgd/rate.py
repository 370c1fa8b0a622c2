"""Alternating steps contract by |1 − η|, and so may be longer than simultaneous ones."""

from __future__ import annotations

import math

import numpy as np

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, near, population, spectrum
from loraone_theory.dynamics.loop import simulate

D, RANK, KAPPA, START = 15, 3, 10.0, 1e-2
ALTERNATING, SIMULTANEOUS, BEYOND = (0.3, 0.5, 1.5, 1.95), (0.3, 0.5, 0.8, 0.95), 2.05
LOW, SETTLED, HIGH = 1e-10, 1e-7, 1e-4
# Errors at HIGH bend a rate by their size; by HIGH faster modes are a hundredth, in quadrature.
ALLOWED = 2e-3


def _alternating(eta: float) -> float:
    return max(abs(1 - eta), (1 - eta) ** 2)


def _simultaneous(eta: float) -> float:
    return max(abs(1 - eta), abs(1 - 2 * eta))


def _rates(draws: Draws, *, alternating: bool, promised_alternating: bool) -> Evidence:
    """The factor a step of ‖E‖ over the promised one; beyond the edge of stability it grows."""
    method = "p-lora-alternating" if alternating else "p-lora"
    law = _alternating if promised_alternating else _simultaneous
    grid = (*ALTERNATING, BEYOND) if alternating and promised_alternating else SIMULTANEOUS
    found = []
    for block, eta in enumerate(grid[2:3] if draws.smoke else grid):
        seeds = draws.seeds(block=block)
        of = population(D, D, spectrum(KAPPA, RANK), seeds)
        true = (_alternating if alternating else _simultaneous)(eta)
        # Where it grows, the fastest mode has to come out first: that takes three decades.
        start, end, low = (LOW, HIGH, SETTLED) if true > 1 else (START, LOW, LOW)
        run = simulate(
            of.problem, method, rank=RANK, learning_rate=eta, initial=near(of, start, seeds),
            steps=max(math.ceil(math.log(end / start) / math.log(true)), 8), record=("error",),
        )  # fmt: skip
        rate = stats.decay_rate(run["error"].numpy(), low=low, high=HIGH)
        found.append(rate / law(eta))
    return Evidence(np.concatenate(found), 1.0, tolerance=ALLOWED + 4 * D * EPS * KAPPA / LOW)


def _claim(id: str, title: str, statement: str, other: str, *, alternating: bool) -> Claim:
    grid = (*ALTERNATING, BEYOND) if alternating else SIMULTANEOUS
    return Claim(
        id=id,
        title=title,
        reference=(
            "derivations, neighbours 9; that larger steps are possible is in the abstract of "
            "arXiv 2502.00463"
        ),
        statement=statement,
        hypotheses=("𝒜 = I", "r = r*", f"a start within {START:g}σ_r"),
        how=(
            f"Factor a step of ‖E‖_F between {HIGH:g} and {LOW:g} of σ_r over the law, from "
            f"{SETTLED:g} up where it grows; d = k = {D}, r = {RANK}, κ = {KAPPA:g}, "
            f"η = {listed(grid)}; ± {ALLOWED:g}."
        ),
        kind="identity",
        measure=lambda draws: _rates(
            draws, alternating=alternating, promised_alternating=alternating
        ),
        mutant_statement=other,
        mutant=lambda draws: _rates(
            draws, alternating=not alternating, promised_alternating=alternating
        ),
        trials=5,
        smoke_trials=2,
        derivation="neighbours 9",
        uses=("scaled-gd/factorisation/edge",),
    )


CLAIMS = (
    _claim(
        "apgd/rate",
        "Alternating steps contract by |1 − η|",
        "The error falls by max(|1 − η|, (1 − η)²) a step: for all η < 2, and at once at η = 1.",
        "the second half-step with the A of before, that is simultaneous steps",
        alternating=True,
    ),
    _claim(
        "apgd/rate/simultaneous",
        "Simultaneous steps contract by max(|1 − η|, |1 − 2η|)",
        "The error falls by max(|1 − η|, |1 − 2η|) a step: for η < 1 alone.",
        "the second half-step with the new A, that is alternating steps",
        alternating=False,
    ),
)
