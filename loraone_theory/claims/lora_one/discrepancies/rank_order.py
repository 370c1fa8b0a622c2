"""4.6: for r < r* the order of Fig. 4 depends on LoRA-GA's scale and on the rank."""

from __future__ import annotations

import functools

import numpy as np

from loraone_theory import methods, predict
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, listed
from loraone_theory.problems.linear.sampling import sample_linear

D, SAMPLES, SCALES = 40, 640, (0.1, 0.5, 2.0, 10.0)
SPECTRUM = tuple(np.linspace(1.0, 0.25, 8).tolist())
RANKS = (2, 4, 6, 7)


@functools.lru_cache(maxsize=1)
def _floors(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Floors of LoRA-One (rank, n) and LoRA-GA (rank, scale, n)."""
    problem = sample_linear(
        d=D, k=D, true_rank=len(SPECTRUM), samples=SAMPLES, spectrum=SPECTRUM, seeds=draws.seeds()
    )
    one = [predict.floor(problem, "lora-one", rank=rank).numpy() for rank in RANKS]
    rival = [
        [
            predict.floor(problem, methods.lora_ga(gamma=D**0.5 / scale), rank=rank).numpy()
            for scale in SCALES
        ]
        for rank in RANKS
    ]
    return np.array(one), np.array(rival)


def _order(draws: Draws, *, reverse: bool) -> Evidence:
    one, rival = _floors(draws)
    ratio = rival / one[:, None]
    numbers = {
        f"LoRA-GA/LoRA-One, r = {rank}, scale {scale:g}": float(ratio[i, j].mean())
        for i, rank in enumerate(RANKS)
        for j, scale in enumerate(SCALES)
        if scale in (0.5, 10.0)
    }
    ratio = ratio.ravel()
    return Evidence(ratio if reverse else 1 / ratio, 1.0, numbers=numbers)


def _dependence(draws: Draws, *, reverse: bool) -> Evidence:
    """At r = r*/2: LoRA-GA's floor at the largest scale over that at the smallest."""
    _, rival = _floors(draws)
    small, large = rival[RANKS.index(4), 0], rival[RANKS.index(4), -1]
    numbers = {"mean ratio": float((large / small).mean())}
    return Evidence(small / large if reverse else large / small, 0.5, numbers=numbers)


_HOW = (
    f"Floors of derivations 3.5, d = k = {D}, N = {SAMPLES}, {len(SPECTRUM)} λ* spaced "
    f"equally from {SPECTRUM[0]:g} to {SPECTRUM[-1]:g}, r = {listed(RANKS)}, √k/γ = "
    f"{listed(SCALES)}."
)

CLAIMS = (
    Claim(
        id="lora-one/discrepancies/rank-order",
        aliases=("4.6",),
        title="Fig. 4's order holds for every r < r* and every scale",
        reference="Section 5, Figure 4",
        statement="For r < r* the least loss of LoRA-One is below that of LoRA-GA.",
        hypotheses=("linear model",),
        how=_HOW,
        kind="bound",
        measure=lambda draws: _order(draws, reverse=False),
        mutant_statement="it is above it for every r < r* and every scale",
        mutant=lambda draws: _order(draws, reverse=True),
        trials=30,
        smoke_trials=4,
        expected=Finding.VIOLATED,
        explanation=(
            "LoRA-GA fits Δ plus its offset, of the singular values √k/γ. Well below r* the offset "
            "is extra rank and LoRA-GA's floor is the lower one, the more so the larger the scale; "
            "at r = r* − 1 it is the higher one; in between the order turns with the scale."
        ),
        derivation="3.5",
        figure="fig_rank_regimes.png",
        uses=("lora-one/linear/floors/scale",),
    ),
    Claim(
        id="lora-one/discrepancies/rank-order/scale",
        aliases=("4.6/scale",),
        title="LoRA-GA's floor depends on its scale",
        reference="derivations 3.5",
        statement="At r = r*/2 the floor at √k/γ = 10 is less than half of that at √k/γ = 0.1.",
        hypotheses=("linear model",),
        how=_HOW,
        kind="bound",
        measure=lambda draws: _dependence(draws, reverse=False),
        mutant_statement="small and large scale exchanged",
        mutant=lambda draws: _dependence(draws, reverse=True),
        trials=30,
        smoke_trials=4,
        derivation="3.5",
        figure="fig_rank_regimes.png",
        uses=("lora-one/linear/floors/scale",),
    ),
)
