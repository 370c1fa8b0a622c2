"""Without weight decay descent fits N observations where r(d + k) − r² is large enough."""

from __future__ import annotations

import numpy as np

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, listed, setting_of
from loraone_theory.claims.population import LIKE, gaussian
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.until import Until
from loraone_theory.problems.sensing.operators import Dense
from loraone_theory.problems.sensing.problem import SensingProblem

D, RANKS, STD, CONSTANT, LESS, PROBABILITY = 10, (1, 2), 0.3, 1.35, 1.08, 0.9
RATE, BETA, STEPS, EVERY, FITTED = 0.02, 0.9, 3000, 100, 1e-6


def _fits(draws: Draws, *, constant: float, ranks: tuple[int, ...] = RANKS) -> Evidence:
    """Loss at the end, at the largest N < (r(d + k) − r²)/constant."""
    found, numbers = [], {}
    for rank in ranks[-1:] if draws.smoke else ranks:
        count = int(np.ceil((2 * D * rank - rank**2) / constant)) - 1
        seeds = draws.seeds(block=rank)
        operator = Dense.sample(D, D, count, seeds, LIKE)
        labels = gaussian(count, 1, seeds, "labels")[..., 0]
        start = Factors(STD * gaussian(D, rank, seeds, "A0"), STD * gaussian(rank, D, seeds, "B0"))
        run = simulate(
            SensingProblem.from_data(operator, labels), methods.lora_momentum(beta=BETA),
            rank=rank, learning_rate=RATE, steps=STEPS, every=EVERY, initial=start,
            record=("loss",), until=Until("loss", FITTED),
        )  # fmt: skip
        # Runs may swing with the momentum: once at the level is fitted, and what comes after, while
        # others go on, is not looked at.
        losses = run["loss"].numpy()
        at = (losses <= FITTED).argmax(0)
        first = np.take_along_axis(losses, at[None], 0)[0]
        found.append(np.where(first <= FITTED, first, np.nanmin(losses, axis=0)))
        share = float((found[-1] <= FITTED).mean())
        numbers[f"share fitted at r = {rank}, N = {count}"] = share
    return Evidence(
        np.concatenate(found), FITTED, probability=PROBABILITY, numbers=numbers,
        setting=setting_of(found),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="rank-threshold/capacity",
        title="It is the dimension of the manifold that decides what is fitted",
        reference=(
            "Park, arXiv 2605.03724, abstract: r(m + n) − r² > C*·KN, C* about 1.35 for Gaussian "
            "features; the probability is ours"
        ),
        statement=(
            f"r(d + k) − r² > {CONSTANT:g}N: descent fits N observations, with a probability of at "
            f"least {PROBABILITY:g}."
        ),
        hypotheses=("a_i and y_i Gaussian, one output", "no weight decay", "Gaussian start"),
        how=(
            f"Loss at most {FITTED:g} within {STEPS} steps of {RATE:g} with momentum {BETA:g}; "
            f"d = k = {D}, r = {listed(RANKS)}, the largest N."
        ),
        kind="probability",
        measure=lambda draws: _fits(draws, constant=CONSTANT),
        mutant_statement=f"{LESS:g} in place of it, at r = {RANKS[-1]}",
        mutant=lambda draws: _fits(draws, constant=LESS, ranks=RANKS[-1:]),
        trials=128,
        smoke_trials=240,
        explanation=(
            "Conservative: somewhat larger N are fitted as well. The condition r(r + 1)/2 > N of "
            "the "
            "case with weight decay asks for far higher ranks."
        ),
    ),
)
