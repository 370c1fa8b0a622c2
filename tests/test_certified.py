"""Proofs by ball arithmetic: what they show, what they refuse, and what they rest on."""

import dataclasses
import functools
import importlib.util
import re
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.claims import CLAIMS, Evidence, Finding, judge
from loraone_theory.claims.base import Certificate
from loraone_theory.claims.choice import chosen
from loraone_theory.cli import main
from loraone_theory.core.extras import MissingExtra
from loraone_theory.problems.relu import closed_forms

NAMES = [name for name in CLAIMS if name.startswith("certified/")]


@pytest.fixture
def certified():
    """The modules, where the extra is installed."""
    pytest.importorskip("flint", reason="the extra certify is not installed")
    return importlib.import_module("loraone_theory.claims.certified")


@functools.cache
def proved(name):
    """The verdict, which no draw enters."""
    return lt.verify(name, smoke=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_certificate_is_found_and_its_mutant_refuted(certified, name):
    verdict = proved(name)
    assert verdict.finding is Finding.CERTIFIED, verdict.reason
    assert verdict.mutant is Finding.VIOLATED, verdict.mutant_reason
    assert verdict.as_expected
    assert 0 < verdict.numbers["boxes"] < 50_000
    assert "proved on the whole domain" in verdict.reason


def point(name):
    """The point that the mutant's refutation names."""
    reason = proved(name).mutant_reason
    return [float(x) for x in re.findall(r"= (-?[\d.e-]+)", reason)]


def test_the_points_that_refute_do_so_in_fifty_digits(certified):
    """Longhand, of the statements themselves; the points are told to six digits."""
    with mpmath.workdps(50):
        rho, theta = map(mpmath.mpf, point("certified/lemma-a"))
        assert 0 <= theta <= mpmath.pi
        perp = rho * mpmath.sin(theta)
        g = mpmath.sin(theta) - theta * mpmath.cos(theta)
        gap = mpmath.hypot(theta / mpmath.pi * perp, rho / mpmath.pi * g)
        square = 1 + rho**2 - 2 * rho * mpmath.cos(theta)
        assert gap > mpmath.mpf("0.99") * square / mpmath.pi

        rho, theta = map(mpmath.mpf, point("certified/lemma-b"))
        g = mpmath.sin(theta) - theta * mpmath.cos(theta)
        square = 1 + rho**2 - 2 * rho * mpmath.cos(theta)
        assert square / 2 - rho / mpmath.pi * g > mpmath.mpf("0.495") * square

        h, e = map(mpmath.mpf, point("certified/scalar-recursion"))
        assert abs(step(h, step(h, e))) > mpmath.mpf("0.99") * abs(e)

        eta, e = map(mpmath.mpf, point("certified/scaled-gd-edge"))
        u = 1 - e
        after = 1 - (u + eta * (1 - u)) ** 2 / u
        assert abs(after) > mpmath.mpf("0.99") * (1 - mpmath.mpf("0.7") * eta) * abs(e)


def step(h, e):
    """1 − σ⁺/λ of σ⁺ = σ(1 + h(1 − σ/λ))²."""
    return 1 - (1 - e) * (1 + h * e) ** 2


def test_what_is_certified_of_the_recursion_holds_on_a_grid_and_no_more():
    h, e = np.meshgrid(np.linspace(0.01, 0.99, 99), np.linspace(-0.25, 0.99, 125), indexing="ij")
    e = np.where(np.isclose(e, 0, rtol=0, atol=rounding(125)), 0.01, e)
    once, twice = step(h, e), step(h, step(h, e))
    assert (np.abs(twice) < np.abs(e)).all()
    assert (once > -0.25).all()
    low = (h <= 0.5) & (e >= 0)
    error = rounding(1, operations=4)  # of 1 − (1 − ε)(1 + hε)², numbers of size 1
    assert (once[low] >= -error).all()
    assert (once[low] <= e[low] + error).all()
    assert abs(step(0.99, -0.185)) > 0.185


def test_the_two_variables_are_those_of_the_lemmas(certified):
    """‖2J − E‖ π/‖w'‖ and E‖y − ŷ‖² of random columns, by the library's closed forms."""
    lemmas = certified.sharp_lemmas
    rng = np.random.default_rng(0)
    for _ in range(20):
        weight, target = rng.standard_normal((2, 5))
        columns = [torch.from_numpy(v)[:, None] for v in (target - weight, weight)]
        size = np.linalg.norm(weight)
        rho = np.linalg.norm(target) / size
        theta = np.arccos(target @ weight / (size**2 * rho))
        arb = certified.base.flint.arb
        gap = float((2 * closed_forms.negative_gradient(*columns) - columns[0]).norm()) / size
        risk = float(closed_forms.squared_error(*columns)) / size**2
        square = 1 + rho**2 - 2 * rho * np.cos(theta)
        parts = captured(certified, lambda: lemmas._first(Fraction(1)))
        (value,) = (float(p.value(arb(rho), arb(theta)).mid()) for p in parts)
        # Some twenty products of length 5 at numbers of size square²; arccos errs by eps/sin θ.
        error = rounding(5, operations=20, condition=1 / np.sin(theta))
        allowed = error * (1 + square**2)
        assert value == pytest.approx(square**2 - (np.pi * gap) ** 2, abs=allowed)
        parts = captured(certified, lambda: lemmas._second(Fraction(1, 4), Fraction(99, 200)))
        upper, lower = (float(p.value(arb(rho), arb(theta)).mid()) for p in parts)
        assert lower == pytest.approx(np.pi * (risk - square / 4), abs=allowed)
        assert upper == pytest.approx(np.pi * (0.495 * square - risk), abs=allowed)


def captured(certified, call):
    """The parts that a measurement would decide."""
    found = []
    lemmas, real = certified.sharp_lemmas, certified.sharp_lemmas.decide
    lemmas.decide = found.extend
    try:
        call()
    finally:
        lemmas.decide = real
    return found


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x - x.sin(), True),  # x³/6 − …
        (lambda x: x.sin() - x, False),
        (lambda x: 1 - x.cos(), True),
        (lambda x: x**2 - 8 * x**3, False),  # positive next to 0, negative before 1/2
        (lambda x: x**4 + x.sin() ** 3, True),
        (lambda x: x - x, False),  # zero is not shown to be positive
    ],
)
def test_series_decide_near_zero(certified, function, expected):
    base = certified.base
    found = base.nonnegative_from_zero(lambda x: (x - x, function(x)), Fraction(1, 2))
    assert found is expected


def test_pi_enters_series_exactly(certified):
    """π(1 − cos x)/2 − (sin x − x cos x) >= 0 needs its x² coefficient π/4 to be one."""
    base = certified.base
    assert base.nonnegative_from_zero(
        lambda x: ((1 - x.cos()) / 2, x * x.cos() - x.sin()), Fraction(1, 2)
    )
    # 3 − π < 0 < 22/7 − π, where a constant is left.
    for numerator, denominator, expected in ((3, 1, False), (22, 7, True)):
        constant = Fraction(numerator, denominator)
        one = base.exact(constant)
        found = base.nonnegative_from_zero(
            lambda x, one=one: (x - x - 1, x - x + one), Fraction(1, 10**6)
        )
        assert found is expected


def part(base, value, low="0", high="1", strips=()):
    return base.Part("it", value, ("x",), (base.span(low, high),), strips)


def test_subdivision_proves_refutes_or_leaves_open(certified, monkeypatch):
    base = certified.base
    monkeypatch.setattr(base, "BOXES", 500)
    third = base.exact(Fraction(1, 3))

    def finding(*parts):
        return judge(base.decide(parts), "certificate")

    assert finding(part(base, lambda x: x**2 - x + 1)).finding is Finding.CERTIFIED
    refuted = finding(part(base, lambda x: (x - third) ** 2 - base.exact(Fraction(1, 1000))))
    assert refuted.finding is Finding.VIOLATED
    assert re.search(r"it fails at x = 0\.3\d*, by", refuted.reason)
    # A zero that no strip takes away is never passed over.
    touching = part(base, lambda x: (x - third) ** 2)
    assert finding(touching).finding is Finding.INCONCLUSIVE
    assert finding(part(base, lambda x: x)).finding is Finding.INCONCLUSIVE
    aside = base.Strip(0, base.span("1/4", "1"), lambda: True)
    assert finding(part(base, lambda x: x, strips=(aside,))).finding is Finding.CERTIFIED
    lost = aside._replace(holds=lambda: False)
    unshown = finding(part(base, lambda x: x + 1, strips=(lost,)))
    assert unshown.finding is Finding.INCONCLUSIVE
    good = part(base, lambda x: x + 1)
    assert finding(good, touching).finding is Finding.INCONCLUSIVE
    assert finding(touching, good, part(base, lambda x: -x)).finding is Finding.VIOLATED


def test_balls_hold_their_intervals(certified):
    base = certified.base
    side = base.span("-1/3", "22/7")
    ball = base.ball(side)
    assert all(ball.contains(base.flint.arb(base.exact(end))) for end in side)
    assert float(ball.rad()) < 1.8  # half of the length is 1.738


@pytest.mark.parametrize(
    ("certificate", "finding", "text"),
    [
        (Certificate(True, "", "", 7, 3), Finding.CERTIFIED, "7 boxes, the smallest halved 3"),
        (Certificate(False, "F at x = 1", "", 7, 3), Finding.VIOLATED, "refuted: F at x = 1"),
        (Certificate(False, "", "F", 7, 3), Finding.INCONCLUSIVE, "F is left open after 7 boxes"),
    ],
)
def test_certificates_are_judged(certificate, finding, text):
    found = judge(Evidence(np.zeros(1), 0.0, certificate=certificate), "certificate")
    assert found.finding is finding
    assert text in found.reason


def test_a_certificate_must_be_there():
    with pytest.raises(ValueError, match="must hold the certificate"):
        judge(Evidence(np.zeros(1), 0.0), "certificate")


def test_without_the_extra_they_are_left_out_and_named(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "flint" else real(name)
    )
    assert not set(NAMES) & set(chosen())
    with pytest.raises(MissingExtra, match=r"certify\]'"):
        lt.verify(NAMES[0])
    quick = dataclasses.replace(CLAIMS["lora-one/linear/one-step"], id="certified/x", aliases=())
    monkeypatch.setitem(CLAIMS, quick.id, quick)
    assert main(["verify", "--smoke", "--paper", "certified"]) == 0
    out = capsys.readouterr().out
    assert all(f"left out: {name}, for flint is not installed" in out for name in NAMES)
    assert main(["verify", NAMES[0]]) == 1
    assert "pip install 'loraone-theory[certify]'" in capsys.readouterr().err
