"""The largest stable learning rate: n^{−1/2} where B is zero at the start, 1/n where A is."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents
from loraone_theory.claims.width import RANK, WIDTHS, features, output, sizes, start, step

STEPS, LARGE, HALVINGS, SLOPE = 5, 2.0, 24, 0.1
Zero = Literal["A", "B"]


def _largest(draws: Draws, n: int, zero: Zero, signs: bool) -> tuple[Tensor, Tensor]:
    """Largest η at which the output's root mean square stays at most LARGE; largest xᵀA there."""
    pair, x, y = start(n, draws.seeds(), zero=zero)
    ones = torch.ones_like(x[:, :1])
    low, high = (ones * bound for bound in (-4 * np.log(n) - 5, 5.0))
    at = ones
    for _ in range(HALVINGS):
        middle, moved = (low + high) / 2, pair
        stays, inner = torch.ones_like(ones, dtype=torch.bool), 0 * ones
        for _ in range(STEPS):
            moved = step(moved, x, y, middle.exp(), signs=signs)
            stays = stays & (_size(output(moved, x)) <= LARGE)
            inner = torch.maximum(inner, _size(features(moved, x)))
        at = torch.where(stays, inner, at)
        low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
    return low.exp()[:, 0, 0], at[:, 0, 0]


def _size(M: Tensor) -> Tensor:
    """Root mean square (s, 1, 1)."""
    return M.square().mean((-2, -1), keepdim=True).sqrt()


def _exponents(
    draws: Draws, zero: Zero, promised: float, *, inner: bool = False, signs: bool = True
) -> Evidence:
    widths = sizes(draws)
    found = [_largest(draws, n, zero, signs)[inner].numpy() for n in widths]
    means = {f"at n = {n}": float(row.mean()) for n, row in zip(widths, found, strict=True)}
    return exponent(exponents(widths, np.array(found)), promised, SLOPE, **means)


COMMON = ("signs of gradients as steps", "one input of n entries N(0, 1), labels N(0, 1)")
FROM_A = (*COMMON, "A₀ with N(0, 1/n) entries, B₀ = 0")
FROM_B = (*COMMON, f"A₀ = 0, B₀ with N(0, 1/{RANK}) entries")
HOW = (
    f"Exponent in n, by bisection of η: root mean square of the output at most {LARGE:g} in "
    f"{STEPS} "
    f"steps; r = {RANK}, n in = n out = {listed(WIDTHS)}; ± {SLOPE:g}."
)
READ = "Hayou, Ghosh, Yu, arXiv 2406.08447, abstract and reviews; derivations, neighbours 12"
LESS, POWER, STILL = -0.8, 0.7, 0.2


CLAIMS = (
    Claim(
        id="impact-of-initialisation/init-a",
        title="With B zero at the start rates up to n^{−1/2} are stable",
        reference=READ,
        statement="Init[A]: the largest stable η is Θ(n^{−1/2}).",
        hypotheses=FROM_A,
        how=HOW,
        kind="value",
        measure=lambda draws: _exponents(draws, "B", -0.5),
        mutant_statement="gradients in place of their signs",
        mutant=lambda draws: _exponents(draws, "B", -0.5, signs=False),
        trials=16,
        smoke_trials=16,
        derivation="neighbours 12",
    ),
    Claim(
        id="impact-of-initialisation/init-a/inner",
        title="There the inner feature grows",
        reference=READ,
        statement="Init[A] at the largest stable η: xᵀA gets Θ(n^{1/2}).",
        hypotheses=FROM_A,
        how=HOW,
        kind="value",
        measure=lambda draws: _exponents(draws, "B", 0.5, inner=True),
        mutant_statement=f"exponent {POWER:g}",
        mutant=lambda draws: _exponents(draws, "B", POWER, inner=True),
        trials=16,
        smoke_trials=16,
        derivation="neighbours 12",
        uses=("impact-of-initialisation/init-a",),
    ),
    Claim(
        id="impact-of-initialisation/init-b",
        title="With A zero at the start rates up to 1/n are stable",
        reference=READ,
        statement="Init[B]: the largest stable η is Θ(1/n).",
        hypotheses=FROM_B,
        how=HOW,
        kind="value",
        measure=lambda draws: _exponents(draws, "A", -1.0),
        mutant_statement=f"exponent {LESS:g}",
        mutant=lambda draws: _exponents(draws, "A", LESS),
        trials=16,
        smoke_trials=16,
        derivation="neighbours 12",
    ),
    Claim(
        id="impact-of-initialisation/init-b/inner",
        title="There the inner feature stays",
        reference=READ,
        statement="Init[B] at the largest stable η: xᵀA is Θ(1).",
        hypotheses=FROM_B,
        how=HOW,
        kind="value",
        measure=lambda draws: _exponents(draws, "A", 0.0, inner=True),
        mutant_statement=f"exponent {STILL:g}",
        mutant=lambda draws: _exponents(draws, "A", STILL, inner=True),
        trials=16,
        smoke_trials=16,
        derivation="neighbours 12",
        uses=("impact-of-initialisation/init-b",),
    ),
)
