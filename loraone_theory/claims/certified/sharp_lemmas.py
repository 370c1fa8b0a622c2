"""Lemmas A and B of derivations 5.2, in two variables: ρ = ‖w̃‖/‖w'‖ and the angle θ."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.certified.base import (
    Part,
    Strip,
    decide,
    exact,
    flint,
    nonnegative_from_zero,
    span,
)

ZERO, START = Fraction(0), Fraction(1, 2)
# Strips at θ = π reach down to π − 1/2; without one a search ends at 157/50 < π.
NEAR_PI, BELOW_PI, ABOVE_PI = Fraction(53, 20), Fraction(157, 50), Fraction(22, 7)


def _first(scale: Fraction) -> Evidence:
    """c²(1 + ρ² − 2ρ cos θ)² − ρ²h² for c = `scale`, h² = (θ − sin θ cos θ)² + sin⁴θ."""
    c2 = scale * scale

    def bracket(x: Any) -> tuple[Any, Any]:
        """4c²(1 − cos θ)² − h²; there is no π in it."""
        sine, cosine = x.sin(), x.cos()
        h2 = (x - sine * cosine) ** 2 + sine**4
        return x - x, exact(4 * c2) * (1 - cosine) ** 2 - h2

    def value(rho: Any, theta: Any) -> Any:
        u = 1 - rho
        square = u**4 + 4 * u**2 * rho * (1 - theta.cos())
        return exact(c2) * square + rho**2 * bracket(theta)[1]

    strip = Strip(1, (START, ABOVE_PI), lambda: nonnegative_from_zero(bracket, START))
    domain = span("0", "1"), (ZERO, ABOVE_PI if scale == 1 else BELOW_PI)
    return decide([Part("the bound", value, ("ρ", "θ"), domain, (strip,))])


def _second(low: Fraction, high: Fraction) -> Evidence:
    """(½ − low)π(1 + ρ² − 2ρ cos θ) − ρg and ρg − (½ − high)π(1 + ρ² − 2ρ cos θ)."""
    below, above = Fraction(1, 2) - low, Fraction(1, 2) - high

    def at_zero(x: Any) -> tuple[Any, Any]:
        sine, cosine = x.sin(), x.cos()
        return exact(2 * below) * (1 - cosine), x * cosine - sine

    def at_pi(x: Any) -> tuple[Any, Any]:
        """The same at θ = π − x: sin θ = sin x, cos θ = −cos x."""
        sine, cosine = x.sin(), x.cos()
        return exact(2 * below) * (1 + cosine) - cosine, x * cosine - sine

    def lower(rho: Any, theta: Any) -> Any:
        P, R = at_zero(theta)
        pi = flint.arb.pi()
        return exact(below) * pi * (1 - rho) ** 2 + rho * (pi * P + R)

    def upper(rho: Any, theta: Any) -> Any:
        g = theta.sin() - theta * theta.cos()
        square = (1 - rho) ** 2 + 2 * rho * (1 - theta.cos())
        return rho * g - exact(above) * flint.arb.pi() * square

    def angle(theta: Any) -> Any:
        return theta.sin() - theta * theta.cos()

    names, ratio = ("ρ", "θ"), span("0", "1")
    strips = (
        Strip(1, (START, ABOVE_PI), lambda: nonnegative_from_zero(at_zero, START)),
        Strip(1, (ZERO, NEAR_PI), lambda: nonnegative_from_zero(at_pi, START)),
    )
    parts = [Part("the lower bound", lower, names, (ratio, (ZERO, BELOW_PI)), strips)]
    if above == 0:  # then ρ is a factor, and g >= 0 is all there is to show
        strip = Strip(0, (START, ABOVE_PI), lambda: nonnegative_from_zero(_g, START))
        parts.append(Part("the upper bound", angle, ("θ",), ((ZERO, ABOVE_PI),), (strip,)))
    else:
        parts.insert(0, Part("the upper bound", upper, names, (ratio, (ZERO, BELOW_PI))))
    return decide(parts)


def _g(x: Any) -> tuple[Any, Any]:
    return x - x, x.sin() - x * x.cos()


_HYPOTHESES = ("Gaussian inputs", "every w'_m ≠ 0, every E_m")
_DOMAIN = (
    "Both sides are homogeneous, and 1 + ρ² − 2ρ cos θ and ρ change by the same factor under "
    "ρ → 1/ρ, so that ρ ∈ [0, 1], θ ∈ [0, π] is everything. "
)
QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)
LESS, MORE = Fraction(99, 100), Fraction(101, 100)


def _of_first(scale: Fraction) -> Any:
    def measure(draws: Draws) -> Evidence:
        return _first(scale)

    return measure


def _of_second(low: Fraction, high: Fraction) -> Any:
    def measure(draws: Draws) -> Evidence:
        return _second(low, high)

    return measure


CLAIMS = (
    Claim(
        id="certified/lemma-a",
        title="The gradient is half the residual, up to its square",
        reference="derivations 5.2, Lemma A",
        statement="‖2J_m − E_m‖ ≤ ‖E_m‖²/(π‖w'_m‖), for every E_m and every w'_m ≠ 0.",
        hypotheses=_HYPOTHESES,
        how=(
            _DOMAIN + "ρ²[(θ − sin θ cos θ)² + sin⁴θ] ≤ (1 + ρ² − 2ρ cos θ)², by subdivision; at "
            "θ → 0, where both sides vanish, by the series of their difference, θ⁶/18 + …."
        ),
        kind="certificate",
        measure=_of_first(Fraction(1)),
        mutant_statement="the constant 1 % smaller",
        mutant=_of_first(LESS),
        trials=1,
        smoke_trials=1,
        cap=1,
        expected=Finding.CERTIFIED,
        derivation="5.2",
        extra="certify",
        uses=("lora-one/relu/closed-forms",),
    ),
    Claim(
        id="certified/lemma-b",
        title="The risk lies between ¼‖E‖² and ½‖E‖²",
        reference="derivations 5.2, Lemma B",
        statement="¼‖AB − Δ‖_F² ≤ E‖y − ŷ‖² ≤ ½‖AB − Δ‖_F².",
        hypotheses=_HYPOTHESES,
        how=(
            _DOMAIN + "0 ≤ ρ(sin θ − θ cos θ) ≤ (π/4)(1 + ρ² − 2ρ cos θ), by subdivision; at θ → 0 "
            "and at θ → π, where it is attained, by series."
        ),
        kind="certificate",
        measure=_of_second(QUARTER, HALF),
        mutant_statement="¼ 1 % larger and ½ 1 % smaller",
        mutant=_of_second(QUARTER * MORE, HALF * LESS),
        trials=1,
        smoke_trials=1,
        cap=1,
        expected=Finding.CERTIFIED,
        derivation="5.2",
        extra="certify",
        uses=("lora-one/relu/closed-forms",),
    ),
)
