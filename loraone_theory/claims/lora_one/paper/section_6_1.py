"""Section 6.1: what one step of LoRA-Pro costs a pair, beside LoRA's own gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator
from loraone_theory.methods.rules.lora_pro import project

# Coefficients of dr², kr² and r³: as the text prints them, and of the products that are made here.
PRINTED, OURS = (10.0, 6.0, 155 / 6), (8.0, 10.0, 14.0)
LEAST, LARGEST, RANKS = 16, 400, (2, 4, 8, 16)


def count(d: int, k: int, rank: int) -> int:
    """Operations in products of one projection, as the tensor library counts them.

    >>> count(10, 20, 2)
    1232
    """
    A, B = torch.ones(1, d, rank).double(), torch.ones(1, rank, k).double()
    with FlopCounterMode(display=False) as counter:
        project(Factors(A, B), Factors(A, B), 1.0, 1.0)
    return counter.get_total_flops()


def printed(d: int, k: int, rank: int, coefficients: tuple[float, float, float]) -> float:
    """a dr² + b kr² + c r³."""
    a, b, c = coefficients
    return rank**2 * (a * d + b * k + c * rank)


def _counted(draws: Draws, coefficients: tuple[float, float, float]) -> Evidence:
    """Operations counted over those promised, at random shapes."""
    ratios, squares = [], []
    for seed in draws.seeds():
        rng = generator(seed, "Section 6.1")
        d, k = (int(n) for n in rng.integers(LEAST, LARGEST, size=2))
        rank = int(rng.choice(RANKS))
        ratios.append(count(d, k, rank) / printed(d, k, rank, coefficients))
        squares.append(count(d, d, rank) / printed(d, d, rank, PRINTED))
    numbers = {
        "least ratio to the promise": min(ratios),
        "largest ratio to the promise": max(ratios),
        "mean ratio to the printed count at d = k": float(np.mean(squares)),
    }
    return Evidence(np.array(ratios), 1.0, numbers=numbers)


_HOW = (
    f"Operations of the products, counted by the tensor library, at random d and k between {LEAST} "
    f"and {LARGEST} and r from {set(RANKS)}; eigendecompositions of r×r matrices, of order r³, are "
    "not counted by it."
)

CLAIMS = (
    Claim(
        id="lora-one/section-6.1/printed",
        title="LoRA-Pro takes 10dr² + 6kr² + (155/6)r³ operations more",
        reference="Section 6.1",
        statement=(
            "One projection of LoRA-Pro takes at most 10dr² + 6kr² + (155/6)r³ operations beyond "
            "LoRA's gradients."
        ),
        hypotheses=("A of d×r, B of r×k", "the projection as it is made here"),
        how=_HOW,
        kind="bound",
        measure=lambda draws: _counted(draws, PRINTED),
        mutant_statement="at most 8dr² + 6kr² + (155/6)r³",
        mutant=lambda draws: _counted(draws, (8.0, *PRINTED[1:])),
        trials=60,
        smoke_trials=12,
        expected=Finding.VIOLATED,
        explanation=(
            "Ours takes 8dr² + 10kr² + 14r³ in products: less in d, more in k, 18 in place of 16 "
            "at d = k. Another order of the products has other coefficients; the order of "
            "magnitude is the printed one."
        ),
        derivation="3.9",
        uses=("lora-one/linear/lora-pro",),
    ),
    Claim(
        id="lora-one/section-6.1/counted",
        title="It takes 8dr² + 10kr² + 14r³ here",
        reference="ours; Section 6.1",
        statement="The products of one projection take 8dr² + 10kr² + 14r³ operations.",
        hypotheses=("A of d×r, B of r×k",),
        how=_HOW,
        kind="identity",
        measure=lambda draws: _counted(draws, OURS),
        mutant_statement="12r³ in place of 14r³",
        mutant=lambda draws: _counted(draws, (*OURS[:2], 12.0)),
        trials=60,
        smoke_trials=12,
        derivation="3.9",
        uses=("lora-one/linear/lora-pro",),
    ),
)
