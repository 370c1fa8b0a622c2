"""The largest stable learning rate: n^{−1/2} where B is zero at the start, 1/n where A is."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents
from loraone_theory.claims.width import RANK, WIDTHS, features, output, sizes, start, step

# Halvings of an interval of up to 43 in ln η: to a thousandth.
STEPS, LARGE, HALVINGS, SLOPE = 5, 2.0, 16, 0.06
Zero = Literal["A", "B"]


@functools.lru_cache(maxsize=2 * len(WIDTHS))
def _largest(seeds: tuple[int, ...], n: int, zero: Zero) -> tuple[Tensor, Tensor]:
    """Largest η at which the output's root mean square stays at most LARGE; largest xᵀA there.

    The rate is one for every draw, and `simulate` takes one for all of them: so the steps are
    taken here, by the library's rule.
    """
    pair, x, y = start(n, seeds, zero=zero)
    ones = torch.ones_like(x[:, :1])
    low, high = (ones * bound for bound in (-4 * np.log(n) - 5, 5.0))
    at = ones
    for _ in range(HALVINGS):
        middle, moved = (low + high) / 2, pair
        stays, inner = torch.ones_like(ones, dtype=torch.bool), 0 * ones
        for _ in range(STEPS):
            moved = step(moved, x, y, middle.exp())
            stays = stays & (_size(output(moved, x)) <= LARGE)
            inner = torch.maximum(inner, _size(features(moved, x)))
        at = torch.where(stays, inner, at)
        low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
    return low.exp()[:, 0, 0], at[:, 0, 0]


def _size(M: Tensor) -> Tensor:
    """Root mean square (s, 1, 1)."""
    return M.square().mean((-2, -1), keepdim=True).sqrt()


def _exponents(draws: Draws, zero: Zero, promised: float, *, inner: bool = False) -> Evidence:
    widths = sizes(draws)
    found = [_largest(draws.seeds(), n, zero)[inner].numpy() for n in widths]
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


def _claim(
    id: str, title: str, statement: str, zero: Zero, promised: float, other: float,
    *, inner: bool = False, uses: tuple[str, ...] = (),
) -> Claim:  # fmt: skip
    return Claim(
        id=f"impact-of-initialisation/{id}",
        title=title,
        reference=READ,
        statement=statement,
        hypotheses=FROM_A if zero == "B" else FROM_B,
        how=HOW,
        kind="value",
        measure=lambda draws: _exponents(draws, zero, promised, inner=inner),
        mutant_statement=f"exponent {other:g}",
        mutant=lambda draws: _exponents(draws, zero, other, inner=inner),
        trials=64,
        smoke_trials=32,
        derivation="neighbours 12",
        uses=uses,
    )


CLAIMS = (
    _claim(
        "init-a",
        "With B zero at the start rates up to n^{−1/2} are stable",
        "Init[A]: the largest stable η is Θ(n^{−1/2}).",
        "B", -0.5, -0.6,
    ),
    _claim(
        "init-a/inner",
        "There the inner feature grows",
        "Init[A] at the largest stable η: xᵀA gets Θ(n^{1/2}).",
        "B", 0.5, 0.6,
        inner=True,
        uses=("impact-of-initialisation/init-a",),
    ),
    _claim(
        "init-b",
        "With A zero at the start rates up to 1/n are stable",
        "Init[B]: the largest stable η is Θ(1/n).",
        "A", -1.0, -0.8,
    ),
    _claim(
        "init-b/inner",
        "There the inner feature stays",
        "Init[B] at the largest stable η: xᵀA is Θ(1).",
        "A", 0.0, 0.2,
        inner=True,
        uses=("impact-of-initialisation/init-b",),
    ),
)  # fmt: skip
