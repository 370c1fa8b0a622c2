"""6.2: online descent takes steps in proportion to d/b."""

from __future__ import annotations

import numpy as np

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.dynamics.online import simulate_online

# η = cb/d; α√d small; several rows of A₀ and one true direction, so that A₀ varies little in size.
WIDTH, BATCH, RANK, STRENGTH, START, LEVEL = 10**5, 5000, 16, 1.0, 1e-6, 0.5
RATIO = WIDTH // BATCH
# Half as many rows, or twice as many inputs, of the second runs.
SCALED = ((WIDTH, BATCH // 2), (2 * WIDTH, BATCH))
# How long runs are, in units of ln(1/α)/c·d/b steps, in which e^{ct} takes A₀ of size α to one.
HORIZON = 1.5


def _times(d: int, b: int, seeds: tuple[int, ...]) -> np.ndarray:
    """Steps after which the risk is half of its start, interpolated; NaN where it never is."""
    steps = round(HORIZON * -np.log(START) / STRENGTH * d / b)
    run = simulate_online(
        d=d, k=d, rank=RANK, true_rank=1, batch=b, learning_rate=STRENGTH * b / d, steps=steps,
        init_std=START, seeds=seeds,
    )  # fmt: skip
    risk = run.risk / run.risk[0]
    below = risk <= LEVEL
    at = np.maximum(below.argmax(0), 1)
    before, after = (np.take_along_axis(risk, at[None] - i, 0)[0] for i in (1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # where it is never reached
        share = (before - LEVEL) / (before - after)
    return np.where(below.any(0), at - 1 + share, np.nan)


def _exponents(draws: Draws, *, promised: float) -> Evidence:
    """ln of the ratio of times over ln 2, runs of their own at both sizes."""
    first, count = _times(WIDTH, BATCH, draws.seeds()), len(SCALED)
    others = draws.seeds(block=1)
    found = [
        np.log2(_times(*sizes, others[i::count]) / first[i::count])
        for i, sizes in enumerate(SCALED)
        if others[i::count]
    ]
    # A step multiplies what grows by 1 + η, where e^η would give times in proportion to d/b: they
    # are longer by η/2 of themselves at the first size, by η/4 at the second, and by at most η in
    # the few units of d/b in which growth ends: η in all.
    return Evidence(
        np.concatenate(found), promised, tolerance=STRENGTH / RATIO / np.log(2),
        numbers={"steps at the first size": stats.median(first)},
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="sensing/online-law/scaling",
        title="Online descent at any width, in units of d/b",
        reference="derivations, sensing 6.2",
        statement="At η = cb/d the steps to a level of the risk grow as d/b.",
        hypotheses=(
            "linear model",
            "fresh isotropic Gaussian rows",
            "α√d small",
            "b and d/b large",
        ),
        how=(
            f"The exponent from twice the inputs and from half the rows; d = k = {WIDTH:g}, "
            f"b = {BATCH:g}, r = {RANK}, Δ of rank one, c = {STRENGTH:g}, α = {START:g}, at "
            f"{LEVEL:.0%} of the risk."
        ),
        kind="value",
        measure=lambda draws: _exponents(draws, promised=1.0),
        mutant_statement="as (d/b)^{0.8}",
        mutant=lambda draws: _exponents(draws, promised=0.8),
        trials=32,
        smoke_trials=16,
        derivation="sensing 6.2",
        figure="fig_online.png",
        uses=("sensing/online-law",),
    ),
)
