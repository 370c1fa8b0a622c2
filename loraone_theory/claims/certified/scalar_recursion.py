"""One balanced mode under gradient descent: ε⁺ = εm, m = 1 − 2h + (2h − h²)ε + h²ε²."""

from __future__ import annotations

from typing import Any

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.certified.base import Part, Side, Strip, decide, exact, flint, span

NAMES = ("h", "ε")
FULL, HALF, ANY = span("0", "1"), span("0", "1/2"), span("0", "1")
# What ε reaches from [0, 1].
REACHED = span("-1/4", "1")
EMPTY = span("1", "0")


def _factor(h: Any, e: Any) -> Any:
    return 1 - 2 * h + (2 * h - h**2) * e + h**2 * e**2


def _two_steps(h: Any, e: Any) -> Any:
    return _factor(h, e) * _factor(h, e * _factor(h, e))


def _rest(h: Any, e: Any) -> Any:
    """What 1 − (two steps) is over h(1 − ε)(2 + hε)[(1 − h)(1 + hε) + h²ε²]."""
    return (
        2 + 2 * e * h * (1 - h) + 3 * e**2 * h**2 * (1 - h)
        + e**3 * h**3 * (3 - h) + e**4 * h**4
    )  # fmt: skip


def _identities() -> bool:
    """The two factorisations, as polynomials with rational coefficients."""
    h, e = flint.fmpq_mpoly_ctx.get(("h", "e"), "lex").gens()
    one = h * (1 - e) * (2 + h * e)
    two = one * ((1 - h) * (1 + h * e) + h**2 * e**2) * _rest(h, e)
    return bool(1 - _factor(h, e) == one and 1 - _two_steps(h, e) == two)


def _by_factors(name: str, end: Any) -> Part:
    """1 − m >= 0 or 1 − (two steps) >= 0: their factors are, once the identities hold."""
    factored = Strip(0, EMPTY, _identities)
    return Part(name, end, NAMES, (FULL, REACHED), (factored,))


def _measure(scale: str) -> Evidence:
    """Everything is contracted by `scale`, 1 or 1 % less."""
    c = exact(span(scale, scale)[0])

    def part(name: str, value: Any, h: Side, e: Side) -> Part:
        return Part(name, value, NAMES, (h, e))

    parts = [
        # Two steps: 1 − M = h(1 − ε)(2 + hε)[(1 − h)(1 + hε) + h²ε²]·rest, every factor >= 0.
        part("2 + hε > 0", lambda h, e: 2 + h * e, FULL, REACHED),
        part("1 + hε > 0", lambda h, e: 1 + h * e, FULL, REACHED),
        part("the last factor > 0", _rest, FULL, REACHED),
        part("two steps > −1", lambda h, e: c + _two_steps(h, e), FULL, REACHED),
        # No way out of [−1/4, 1]: where ε < 0, ε⁺ = ε − hε(1 − ε)(2 + hε) >= ε, and ε⁺ <= 1 as
        # |m| < 4; elsewhere m <= 1.
        part("ε⁺ > −1/4", lambda h, e: exact(-REACHED[0]) + e * _factor(h, e), FULL, ANY),
        part("|m| < 4", lambda h, e: 16 - _factor(h, e) ** 2, FULL, REACHED),
        # No overshoot for h <= 1/2: m = (1 − 2h) + hε(2 − h + hε), both terms >= 0.
        part("2 − h + hε > 0", lambda h, e: 2 - h + h * e, HALF, ANY),
    ]
    if scale == "1":
        parts.append(_by_factors("two steps < 1", lambda h, e: 1 - _two_steps(h, e)))
    else:
        parts.append(part("two steps < 1", lambda h, e: c - _two_steps(h, e), FULL, REACHED))
    return decide(parts)


def _of(scale: str) -> Any:
    def measure(draws: Draws) -> Evidence:
        return _measure(scale)

    return measure


CLAIMS = (
    Claim(
        id="certified/scalar-recursion",
        title="A balanced mode under gradient descent: monotone for h ≤ ½, convergent for h < 1",
        reference="derivations 3.6, balanced flow; ours",
        statement=(
            "ε⁺ = ε[1 − 2h + (2h − h²)ε + h²ε²] for ε = 1 − σ/λ, h = ηλ. For h ≤ ½ and ε ∈ [0, 1]: "
            "0 ≤ ε⁺ ≤ ε. For 0 < h < 1 and 0 ≠ ε ∈ [−¼, 1): ε⁺ ∈ [−¼, 1) and |ε⁺⁺| < |ε|, so "
            "ε_t → 0."
        ),
        hypotheses=("linear model, Σ̂ = I", "balanced start on the pairs of the target"),
        how=(
            "1 − m = h(1 − ε)(2 + hε) and 1 − (two steps) = h(1 − ε)(2 + hε)[(1 − h)(1 + hε) + "
            "h²ε²] times a quartic, checked as polynomials; the signs of the factors by "
            "subdivision of h ∈ [0, 1], ε ∈ [−¼, 1]."
        ),
        kind="certificate",
        measure=_of("1"),
        mutant_statement="two steps contract by 0.99",
        mutant=_of("0.99"),
        trials=1,
        smoke_trials=1,
        cap=1,
        expected=Finding.CERTIFIED,
        explanation=(
            "A single step need not contract on the side of the overshoot: at h = 0.99, ε = −0.185 "
            "it expands, which two steps undo."
        ),
        extra="certify",
        uses=("sensing/flow/descent",),
    ),
)
