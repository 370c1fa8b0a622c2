"""Intervals cover what they promise to cover, and the judge decides hand-made evidence.

Coverage by simulation: with n repetitions a true coverage c is found within four standard errors,
4√(c(1 − c)/n), except with probability 6e-5. Seeds are fixed.
"""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from tolerance import near, rounding

from loraone_theory.claims import CLAIMS, Evidence, Finding, judge, stats
from loraone_theory.claims.base import Certificate

NAN = float("nan")
ENOUGH = stats.draws_needed(0.99)


def at_least(coverage, repetitions):
    return coverage - 4 * math.sqrt(coverage * (1 - coverage) / repetitions)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.9, 0.99, 1.0])
def test_probability_bounds_hold_at_every_number_of_trials(probability):
    """Time-uniform coverage: of runs looked at after every trial, the bounds of few ever fail."""
    confidence, repetitions, trials = 0.9, 1000, 300
    drawn = np.random.default_rng(7).random((repetitions, trials)) < probability
    successes = np.cumsum(drawn, axis=1)
    looked = np.unique(np.geomspace(1, trials, 25).astype(int))
    missed = np.zeros((2, repetitions), dtype=bool)
    for n in looked:
        counts, which = np.unique(successes[:, n - 1], return_inverse=True)
        bounds = [stats.probability_sequence(int(s), int(n), confidence) for s in counts]
        low, high = (np.array([getattr(b, end) for b in bounds]) for end in ("low", "high"))
        assert (np.diff(low) >= 0).all()
        assert (low <= counts / n).all()
        assert (high >= counts / n).all()
        missed[0] |= low[which] > probability
        missed[1] |= high[which] < probability
    assert (1 - missed.mean(axis=1) >= at_least(confidence, repetitions)).all()


def test_probability_bounds_are_where_the_mixture_reaches_the_level():
    """ln of half the mass on 1 and half uniform on (p₀, 1), by quadrature, at the bound itself."""
    for s, f in ((37, 23), (459, 0), (1, 0), (12, 300)):
        low = stats.probability_sequence(s, s + f, 0.99).low

        def ratio(p, s=s, f=f, low=low):
            return (p / low) ** s * ((1 - p) / (1 - low)) ** f

        uniform = scipy.integrate.quad(ratio, low, 1, limit=200, epsrel=QUADRATURE)[0] / (1 - low)
        atom = low**-s if f == 0 else 0.0
        # The quadrature's tolerance, and 459 powers of a bound that is known to rounding.
        wrong = QUADRATURE + rounding(s + f, operations=4, condition=1 / (1 - low))
        assert (atom + uniform) / 2 == pytest.approx(100, rel=wrong)
        mirrored = stats.probability_sequence(f, s + f, 0.99).high
        assert mirrored == pytest.approx(1 - low, abs=rounding(2))
    assert stats.probability_sequence(0, 9, 0.99).low == 0.0
    assert stats.probability_sequence(9, 9, 0.99).high == 1.0


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99])
def test_draws_needed_is_the_least_number(probability):
    n, level = stats.draws_needed(probability), stats.each(0.99)
    assert stats.probability_sequence(n, n, level).low >= probability
    assert stats.probability_sequence(n - 1, n - 1, level).low < probability


def test_a_run_is_as_sure_as_all_its_verdicts():
    assert 1 - stats.each(0.9) == pytest.approx(0.1 / stats.VERDICTS, abs=rounding(2))
    by_luck = [claim for claim in CLAIMS.values() if claim.kind in ("probability", "value")]
    assert 2 * len(by_luck) <= stats.VERDICTS


@pytest.mark.parametrize(
    ("law", "promised"), [("normal", 0.95), ("exponential", 0.9), ("rademacher", 0.95)]
)
def test_mean_bounds_hold_at_every_number_of_values(law, promised):
    """Exact for Gaussian values; a skewed law may cost as much again as was promised to fail."""
    rng, confidence, repetitions, n = np.random.default_rng(3), 0.95, 800, 200
    values = {
        "normal": rng.standard_normal((repetitions, n)),
        "exponential": rng.exponential(1.0, (repetitions, n)) - 1,
        "rademacher": rng.choice([-1.0, 1.0], (repetitions, n)),
    }[law] + 5.0
    missed = np.zeros(repetitions, dtype=bool)
    for look in (8, 12, 18, 27, 40, 60, 90, 135, 200):
        for i in range(repetitions):
            found = stats.mean_sequence(values[i, :look], confidence)
            missed[i] |= not found.low <= 5.0 <= found.high
    assert 1 - missed.mean() >= at_least(promised, repetitions)


@pytest.mark.parametrize(("law", "promised"), [("normal", 1.7e-5), ("exponential", 7e-4)])
def test_mean_bounds_at_the_level_of_a_verdict(law, promised):
    """From 8 values on, doubled four times, as a claim is; the interval's half width by hand."""
    rng, repetitions, looks = np.random.default_rng(11), 100_000, (8, 16, 32, 64, 128)
    missed = np.zeros(repetitions, dtype=bool)
    drawn = getattr(rng, f"standard_{law}")((repetitions, looks[-1])) - (law == "exponential")
    for n in looks:
        known = np.array([-1.0, 1.0] * (n // 2))
        per_error = stats.mean_sequence(known, stats.each()).high / known.std(ddof=1)
        values = drawn[:, :n]
        missed |= np.abs(values.mean(1)) > per_error * values.std(1, ddof=1)
    # Four standard errors of a share.
    assert missed.mean() <= promised + 4 * math.sqrt(promised / repetitions)


def test_mean_bounds_are_where_the_bayes_factor_reaches_the_level():
    """The factor by two quadratures over μ/σ and σ, at the upper bound of the mean."""
    values = np.random.default_rng(1).standard_normal(9)
    found = stats.mean_sequence(values, 0.95)
    y = values - found.high

    def likelihood(effect, sigma):
        return np.exp(-((y / sigma - effect) ** 2).sum() / 2) / sigma ** (len(y) + 1)

    def over(effect):
        return scipy.integrate.quad(lambda sigma: likelihood(effect, sigma), 0.05, 60)[0]

    prior, nested = scipy.stats.norm(scale=stats.EFFECT).pdf, 1e-6
    # The likelihood falls like exp(−9 e²/2) or faster, so |e| <= 12 holds all but nothing of it.
    alternative = scipy.integrate.quad(
        lambda e: over(e) * prior(e), -12, 12, epsrel=nested, limit=200, points=[-2, 0, 2]
    )[0]
    # Two nested quadratures, over ranges with tails of σ from 60 on left out, 1/60² and less.
    assert alternative / over(0.0) == pytest.approx(20, rel=2 * nested + 60.0**-2)


def test_few_values_bound_nothing():
    found = stats.mean_sequence(np.array([1.0, 1.1, 0.9]), 1 - 1e-9)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert stats.mean_sequence(np.full(9, 2.0), 0.99) == (2.0, 2.0, 2.0)


QUADRATURE = 1e-10  # relative


def test_least_sizes_and_defaults():
    assert stats.each() == stats.each(0.99)
    assert stats.slopes(np.array([0.0, 2.0]), np.array([[1.0], [2.0]])).tolist() == [0.5]
    # Three equal values have an interval without a width.
    assert found("value", np.full(3, 2.0), 2.0, tolerance=0.1) is Finding.SUPPORTED


def test_slopes_agree_with_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(9), rng.standard_normal((9, 4))
    expected = [np.polyfit(x, column, 1)[0] for column in y.T]
    # Two sums over 9 points, of terms of size ten times the slope or less.
    np.testing.assert_allclose(stats.slopes(x, y), expected, **near(9, operations=4, scale=10.0))


def test_decay_rates_use_the_window_alone():
    t = np.arange(200.0)
    clean = 0.9**t
    # A transient above the window and a floor of rounding below it must not count.
    disturbed = np.where(t < 20, 3.0, clean)
    least = 1e-7
    disturbed = np.where(clean < least, least, disturbed)
    short = 0.01**t
    found = stats.decay_rate(np.stack([clean, disturbed, short], axis=1), low=1e-6, high=0.1)
    # A fit to some 110 logarithms of size 14.
    np.testing.assert_allclose(found[:2], 0.9, rtol=rounding(110, operations=14))
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.probability_sequence(5, 4, 0.9), "successes must be <= trials; got 5 of 4"),
        (
            lambda: stats.probability_sequence(1, 4, 1.0),
            "confidence must lie strictly between 0 and 1",
        ),
        (lambda: stats.probability_sequence(0, 0, 0.9), "trials must be >= 1"),
        (lambda: stats.slopes(np.zeros(1), np.zeros((1, 1))), "slopes take x"),
        (lambda: stats.draws_needed(1.0), "probability must lie strictly between 0 and 1"),
        (lambda: stats.mean_sequence(np.zeros(2), 0.9), "an interval takes at least 3 values"),
        (lambda: stats.slopes(np.zeros(3), np.zeros((2, 1))), "slopes take x"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def found(kind, lhs, rhs, **options):
    return judge(Evidence(np.asarray(lhs), np.asarray(rhs), **options), kind).finding


def test_identities():
    assert found("identity", [1.0, 2.0], [1.0, 2.0]) is Finding.SUPPORTED
    assert found("identity", [1.0, 2.1], [1.0, 2.0], tolerance=0.05) is Finding.VIOLATED
    assert found("identity", [1.0, 1.9], [1.0, 2.0], tolerance=0.05) is Finding.VIOLATED
    assert found("identity", [1.0, 1.9], [1.0, 2.0], tolerance=[0.0, 0.2]) is Finding.SUPPORTED


def test_bounds_are_one_sided():
    assert found("bound", [0.5, -9.0], 1.0) is Finding.SUPPORTED
    assert found("bound", [0.5, 1.1], 1.0) is Finding.VIOLATED
    assert found("bound", [0.5, 1.1], 1.0, tolerance=0.2) is Finding.SUPPORTED


@pytest.mark.parametrize("kind", ["identity", "bound"])
def test_draws_outside_are_counted_and_never_support(kind):
    both = judge(Evidence(np.array([0.0, 9.0]), 0.0, inside=np.array([True, False])), kind)
    assert (both.finding, both.trials, both.inside) == (Finding.SUPPORTED, 2, 1)
    none = judge(Evidence(np.array([0.0, 0.0]), 0.0, inside=False), kind)
    assert (none.finding, none.inside) == (Finding.OUTSIDE_HYPOTHESES, 0)


@pytest.mark.parametrize("kind", ["identity", "bound", "value"])
def test_what_cannot_be_measured_does_not_support(kind):
    values = [0.0] * 9 + [NAN]
    assert found(kind, values, 0.0, tolerance=1.0) is Finding.VIOLATED
    assert found(kind, values, 0.0, inside=[True] * 9 + [False]) is Finding.SUPPORTED
    outside = found(kind, values, 0.0, tolerance=1.0, inside=[False] * 10)
    assert outside is Finding.OUTSIDE_HYPOTHESES


def test_a_tolerance_that_is_nan_supports_nothing():
    assert found("bound", [0.0], 1.0, tolerance=[NAN]) is Finding.VIOLATED


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (ENOUGH, ENOUGH, Finding.SUPPORTED),
        (ENOUGH - 1, ENOUGH - 1, Finding.INCONCLUSIVE),
        (ENOUGH, ENOUGH + 1, Finding.INCONCLUSIVE),
        (400, 459, Finding.VIOLATED),
        (1, 1, Finding.INCONCLUSIVE),
    ],
)
def test_probabilities_take_enough_trials(successes, trials, expected):
    lhs = np.zeros(trials)
    lhs[successes:] = 2.0
    answer = judge(Evidence(lhs, 1.0, probability=0.99), "probability", stats.each(0.99))
    assert answer.finding is expected


def test_a_nan_is_a_failed_trial():
    lhs = np.zeros(600)
    lhs[:50] = NAN
    answer = judge(Evidence(lhs, 1.0, probability=0.99), "probability")
    assert answer.finding is Finding.VIOLATED
    assert "550 of 600 succeed" in answer.reason


def test_a_probability_must_be_stated():
    with pytest.raises(ValueError, match="must state the promised probability"):
        judge(Evidence(np.zeros(3), 1.0), "probability")


def test_values_are_equivalent_different_or_undecided():
    values = 2.0 + 0.01 * np.random.default_rng(0).standard_normal(30)
    half = (lambda found: (found.high - found.low) / 2)(stats.mean_sequence(values, 0.99))
    assert found("value", values, 2.0, tolerance=3 * half) is Finding.SUPPORTED
    assert found("value", values, 2.0 + 5 * half, tolerance=2 * half) is Finding.VIOLATED
    assert found("value", values, 2.0 - 5 * half, tolerance=2 * half) is Finding.VIOLATED
    # Wide intervals decide nothing, however near the mean is.
    assert found("value", values, values.mean(), tolerance=0.9 * half) is Finding.INCONCLUSIVE
    assert found("value", values, 2.0 + 2 * half, tolerance=2 * half) is Finding.INCONCLUSIVE
    assert found("value", values[:2], 2.0, tolerance=1.0) is Finding.INCONCLUSIVE


def test_what_is_told_beside_a_finding():
    answer = judge(Evidence(np.array([0.0, 3.0, 1.0]), 1.0, tolerance=0.5), "bound")
    assert (answer.finding, answer.worst) == (Finding.VIOLATED, 1.5)
    proved = Certificate(proved=True, counterexample="", undecided="", boxes=4, depth=2)
    answer = judge(Evidence(np.zeros(1), 0.0, certificate=proved), "certificate")
    assert (answer.trials, answer.inside, answer.worst) == (1, 1, 0.0)


def test_an_interval_that_ends_at_the_allowance_is_undecided():
    values = np.random.default_rng(1).normal(1.0, 0.1, 40)
    low = stats.mean_sequence(values, 0.99).low
    assert low > 0
    for side in (1.0, -1.0):
        assert found("value", side * values, 0.0, tolerance=low) is Finding.INCONCLUSIVE
        assert found("value", side * values, 0.0, tolerance=0.999 * low) is Finding.VIOLATED


def test_an_allowance_counts_once():
    """Points as intervals: the promise is kept at a distance of 0.99 allowances, not at 1.01."""
    values = np.full(9, 2.0)
    for distance, expected in ((0.99, Finding.SUPPORTED), (1.01, Finding.VIOLATED)):
        for side in (1, -1):
            answer = found("value", values, 2.0 + side * distance * 0.1, tolerance=0.1)
            assert answer is expected, (distance, side)
    # The smallest allowance of the draws counts, and how far the promise is missed is told.
    assert found("value", values, 2.1, tolerance=[0.2] * 8 + [0.0]) is Finding.VIOLATED
    missed = judge(Evidence(values, 2.3, tolerance=0.1), "value")
    assert missed.worst == pytest.approx(0.2, rel=rounding(8, condition=2.3 / 0.2))


def test_wrong_verdicts_on_values_are_as_rare_as_promised():
    """A true value is rejected, and one just outside the allowance supported, at most so often."""
    rng, repetitions = np.random.default_rng(11), 300
    draws = rng.standard_normal((repetitions, 16))
    alarms = sum(found("value", row, 0.0) is Finding.VIOLATED for row in draws)
    assert alarms / repetitions <= 1 - at_least(0.99, repetitions)
    wrong = sum(found("value", row, 1.0, tolerance=1.0) is Finding.SUPPORTED for row in draws)
    assert wrong / repetitions <= 1 - at_least(0.99, repetitions)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, claim in CLAIMS.items()
        if n.startswith(("lora-one/theorem-4.2", "lora-one/lemma-d.5"))
        and (claim.kind, claim.expected) == ("probability", Finding.SUPPORTED)
    ],
)
def test_probabilities_of_the_relu_theorems_draw_as_many_as_they_need(name):
    """Their counts are plain numbers, since the needed one loads scipy's special functions."""
    assert CLAIMS[name].rounds(smoke=False)[-1] >= stats.draws_needed(0.99)
