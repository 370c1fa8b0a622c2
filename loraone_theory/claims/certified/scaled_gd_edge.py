"""ScaledGD on one mode: how far the contraction 1 − 0.7η reaches in η."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.certified.base import Part, Strip, decide, exact, span

NAMES = ("η", "e")
RATE = Fraction(7, 10)
EDGE = 2 / (2 + RATE)  # 20/27: where 2η − 1 crosses 1 − 0.7η
ROUND = Fraction(1, 100)
AMPLITUDE = Fraction(3, 20)  # |1 − u| where √u is within 0.1/√2 of 1
WIDE = Fraction(7, 10)


def _measure(scale: Fraction, edge: Fraction) -> Evidence:
    """−c <= e⁺/e <= c with c = scale(1 − 0.7η), e⁺/e = 1 − 2η − η²e/(1 − e)."""
    c, slope = exact(scale), exact(scale * RATE)

    def upper(eta: Any, e: Any) -> Any:
        """c − e⁺/e, over η where that is a factor."""
        if scale == 1:
            return 2 - slope + eta * e / (1 - e)
        return c - 1 + (2 - slope) * eta + eta**2 * e / (1 - e)

    def lower(eta: Any, e: Any) -> Any:
        return c + 1 - (2 + slope) * eta - eta**2 * e / (1 - e)

    def beyond(eta: Any, e: Any) -> Any:
        return -lower(eta, e)

    def tangent(eta: Any, e: Any) -> Any:
        """c − (1 − η), over η where that is a factor: modes between different directions."""
        return 1 - slope + 0 * eta if scale == 1 else c - 1 + (1 - slope) * eta

    def at_the_edge() -> bool:
        """For e <= 0 the last term is >= 0, and the rest falls in η: it is >= 0 at the edge."""
        return scale + 1 - (2 + scale * RATE) * edge >= 0

    zero, eta = Fraction(0), (Fraction(0), edge)
    both, left, right = (-AMPLITUDE, AMPLITUDE), (-AMPLITUDE, zero), (zero, AMPLITUDE)
    exact_part = Strip(0, (Fraction(1), zero), at_the_edge)
    return decide(
        [
            Part("e⁺/e ≤ 1 − 0.7η", upper, NAMES, (eta, both)),
            Part("1 − η ≤ 1 − 0.7η", tangent, NAMES, (eta, both)),
            Part("e⁺/e ≥ −(1 − 0.7η), e ≥ 0", lower, NAMES, ((zero, WIDE), right)),
            Part("e⁺/e ≥ −(1 − 0.7η), e ≤ 0", lower, NAMES, (eta, left), (exact_part,)),
            Part("beyond the edge", beyond, NAMES, ((edge + ROUND, Fraction(1)), (-ROUND, ROUND))),
        ]
    )


def _of(scale: str, edge: Fraction) -> Any:
    def measure(draws: Draws) -> Evidence:
        return _measure(span(scale, scale)[0], edge)

    return measure


CLAIMS = (
    Claim(
        id="certified/scaled-gd-edge",
        title=f"ScaledGD contracts by 1 − 0.7η up to η = {WIDE}, from below up to {EDGE}",
        reference="ours; the bound is that of Tong, Ma, Chi 2021, for η ≤ 2/3",
        statement=(
            "On one mode, u⁺ = (u + η(1 − u))²/u, e = 1 − u: |e⁺| ≤ (1 − 0.7η)|e| for "
            f"−{AMPLITUDE} ≤ e ≤ 0, η ≤ {EDGE}, and for 0 ≤ e ≤ {AMPLITUDE}, η ≤ {WIDE}; between "
            f"modes 1 − η ≤ 1 − 0.7η. For η from {EDGE} + {ROUND} to 1 and |e| ≤ {ROUND} it fails."
        ),
        hypotheses=("𝒜 = I", "balanced factors of rank 1"),
        how=(
            f"e⁺/e = 1 − 2η − η²e/(1 − e) by subdivision in η and e; at the corner ({EDGE}, 0), "
            "where 2η − 1 = 1 − 0.7η, in rational arithmetic."
        ),
        kind="certificate",
        measure=_of("1", EDGE),
        mutant_statement="the contraction 1 % smaller",
        mutant=_of("0.99", EDGE),
        trials=1,
        smoke_trials=1,
        cap=1,
        expected=Finding.CERTIFIED,
        extra="certify",
        uses=("sensing/flow/preconditioned",),
    ),
)
