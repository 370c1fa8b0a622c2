"""Intervals cover what they promise to cover, and the judge decides hand-made evidence.

Coverage by simulation: with n repetitions a true coverage c is found within four standard errors,
4√(c(1 − c)/n), except with probability 6e-5. Seeds are fixed.
"""

import math

import numpy as np
import pytest
import scipy.stats

from loraone_theory.claims import Evidence, Finding, judge, stats

NAN = float("nan")


def at_least(coverage, repetitions):
    return coverage - 4 * math.sqrt(coverage * (1 - coverage) / repetitions)


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("trials", [5, 40, 459])
def test_clopper_pearson_covers(trials, probability):
    """Both one-sided bounds: exactly, by summing the binomial law, and by simulation."""
    confidence, repetitions = 0.95, 4000
    bounds = [stats.clopper_pearson(s, trials, confidence) for s in range(trials + 1)]
    low, high = (np.array([getattr(b, end) for b in bounds]) for end in ("low", "high"))
    assert (np.diff(low) > 0).all()
    assert (np.diff(high) > 0).all()
    law = scipy.stats.binom(trials, probability)
    weights = law.pmf(np.arange(trials + 1))
    drawn = np.random.default_rng(trials).binomial(trials, probability, repetitions)
    for holds in (low <= probability, high >= probability):
        # The sum of up to 460 probabilities, each good to a few eps.
        assert weights[holds].sum() >= confidence - 1e-12
        assert holds[drawn].mean() >= at_least(confidence, repetitions)


def test_clopper_pearson_is_not_wider_than_it_has_to_be():
    """At its own bound, s or more successes have exactly probability 1 − c."""
    found = stats.clopper_pearson(37, 60, 0.99)
    assert found.estimate == 37 / 60
    assert scipy.stats.binom.sf(36, 60, found.low) == pytest.approx(0.01, rel=1e-9)
    assert scipy.stats.binom.cdf(37, 60, found.high) == pytest.approx(0.01, rel=1e-9)
    assert stats.clopper_pearson(0, 9).low == 0.0
    assert stats.clopper_pearson(9, 9).high == 1.0


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_trials_needed_is_the_least_number(probability, confidence):
    n = stats.trials_needed(probability, confidence)
    assert stats.clopper_pearson(n, n, confidence).low >= probability * (1 - 1e-12)
    assert stats.clopper_pearson(n - 1, n - 1, confidence).low < probability if n > 1 else n == 1


def test_trials_needed_of_the_usual_case():
    assert stats.trials_needed(0.99, 0.99) == 459


@pytest.mark.parametrize(
    ("law", "n", "confidence"),
    [("normal", 12, 0.99), ("normal", 24, 0.8), ("exponential", 24, 0.95)],
)
def test_mean_intervals_cover(law, n, confidence):
    """Bootstrap-t is second-order accurate: its error, of order 1/n, is allowed on both sides."""
    rng, repetitions, hits = np.random.default_rng(3), 600, 0
    for _ in range(repetitions):
        values = rng.standard_normal(n) if law == "normal" else rng.exponential(1.0, n) - 1
        found = stats.mean_interval(values + 5.0, confidence, resamples=1000)
        assert found.low <= found.estimate <= found.high
        hits += found.low <= 5.0 <= found.high
    noise = confidence - at_least(confidence, repetitions) + (1 - confidence) / n
    assert hits / repetitions >= confidence - noise
    # The other side: an interval that covered always would say nothing.
    assert hits / repetitions <= confidence + noise


def test_slope_intervals_cover():
    """Slopes over seeds of a power law with noise, with a common offset of every seed."""
    rng, repetitions, seeds, exponent = np.random.default_rng(5), 600, 12, -1.5
    x, hits, width = np.log(2.0 ** np.arange(6)), 0, []
    for _ in range(repetitions):
        noise = 0.1 * rng.standard_normal((6, seeds)) + rng.standard_normal(seeds)
        found = stats.mean_interval(
            stats.slopes(x, exponent * x[:, None] + noise), 0.95, resamples=1000
        )
        hits += found.low <= exponent <= found.high
        width.append(found.high - found.low)
    assert hits / repetitions >= at_least(0.95, repetitions) - 0.05 / seeds
    # The slope of one seed has standard deviation 0.1/‖x − x̄‖; t intervals of 12 are 2·2.2/√12.
    deviation = 0.1 / np.linalg.norm(x - x.mean())
    assert np.median(width) == pytest.approx(2 * 2.2 * deviation / math.sqrt(seeds), rel=0.25)


def test_constant_values_have_a_point_as_interval():
    assert stats.mean_interval(np.full(5, 0.1)) == (0.1, 0.1, 0.1)


def test_slopes_agree_with_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(9), rng.standard_normal((9, 4))
    expected = [np.polyfit(x, column, 1)[0] for column in y.T]
    np.testing.assert_allclose(stats.slopes(x, y), expected, rtol=1e-10)


def test_decay_rates_use_the_window_alone():
    t = np.arange(200.0)
    clean = 0.9**t
    # A transient above the window and a floor of rounding below it must not count.
    disturbed = np.where(t < 20, 3.0, clean)
    disturbed = np.where(clean < 1e-7, 1e-7, disturbed)
    short = 0.01**t
    found = stats.decay_rate(np.stack([clean, disturbed, short], axis=1), low=1e-6, high=0.1)
    np.testing.assert_allclose(found[:2], 0.9, rtol=1e-12)
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.clopper_pearson(5, 4), "successes must be <= trials; got 5 of 4"),
        (lambda: stats.clopper_pearson(1, 4, 1.0), "confidence must lie strictly between 0 and 1"),
        (lambda: stats.trials_needed(1.0), "probability must lie strictly between 0 and 1"),
        (lambda: stats.mean_interval(np.zeros(2)), "an interval takes at least 3 values"),
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
    values = [0.0, 0.0, 0.0, NAN]
    assert found(kind, values, 0.0, tolerance=1.0) is Finding.VIOLATED
    assert found(kind, values, 0.0, inside=[True] * 3 + [False]) is Finding.SUPPORTED
    assert found(kind, values, 0.0, tolerance=1.0, inside=[False] * 4) is Finding.OUTSIDE_HYPOTHESES


def test_a_tolerance_that_is_nan_supports_nothing():
    assert found("bound", [0.0], 1.0, tolerance=[NAN]) is Finding.VIOLATED


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        (459, 459, Finding.SUPPORTED),
        (458, 458, Finding.INCONCLUSIVE),
        (459, 460, Finding.INCONCLUSIVE),
        (400, 459, Finding.VIOLATED),
        (1, 1, Finding.INCONCLUSIVE),
    ],
)
def test_probabilities_take_enough_trials(successes, trials, expected):
    lhs = np.zeros(trials)
    lhs[successes:] = 2.0
    answer = judge(Evidence(lhs, 1.0, probability=0.99), "probability")
    assert answer.finding is expected
    if expected is Finding.INCONCLUSIVE:
        assert "at least 459 trials" in answer.reason


def test_a_nan_is_a_failed_trial():
    lhs = np.zeros(600)
    lhs[:50] = NAN
    answer = judge(Evidence(lhs, 1.0, probability=0.99), "probability")
    assert answer.finding is Finding.VIOLATED
    assert "550 of 600 succeed" in answer.reason


def test_a_probability_must_be_stated():
    with pytest.raises(ValueError, match="must state the promised probability"):
        judge(Evidence(np.zeros(3), 1.0), "probability")


def test_values_use_interval_and_allowance():
    values = 2.0 + 0.01 * np.random.default_rng(0).standard_normal(30)
    assert found("value", values, 2.0) is Finding.SUPPORTED
    assert found("value", values, 2.05) is Finding.VIOLATED
    assert found("value", values, 1.95) is Finding.VIOLATED
    assert found("value", values, 2.05, tolerance=0.06) is Finding.SUPPORTED
    assert found("value", values[:2], 2.0) is Finding.INCONCLUSIVE


def test_an_allowance_widens_the_interval_by_itself_and_no_more():
    """Points as intervals: the promise is kept at a distance of 0.99 allowances, not at 1.01."""
    values = np.full(5, 2.0)
    for distance, expected in ((0.99, Finding.SUPPORTED), (1.01, Finding.VIOLATED)):
        for side in (1, -1):
            answer = found("value", values, 2.0 + side * distance * 0.1, tolerance=0.1)
            assert answer is expected, (distance, side)
    # The largest allowance of the draws counts, and how far the promise is missed is told.
    assert found("value", values, 2.1, tolerance=[0.0, 0.0, 0.2, 0.0, 0.0]) is Finding.SUPPORTED
    missed = judge(Evidence(values, 2.3, tolerance=0.1), "value")
    assert missed.worst == pytest.approx(0.2, rel=8 * 2.3e-16 * 2.3 / 0.2)


def test_the_false_alarm_rate_of_values_is_that_of_the_interval():
    """At 99 % confidence a true value is rejected in about one case of a hundred."""
    rng, repetitions = np.random.default_rng(11), 300
    alarms = sum(
        found("value", rng.standard_normal(16), 0.0) is Finding.VIOLATED for _ in range(repetitions)
    )
    assert alarms / repetitions <= 1 - at_least(0.99, repetitions) + 0.01 / 16
