"""Statistics of verdicts: confidence sequences of probabilities and means, slopes, decay rates."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy

from loraone_theory.core import validate


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


# Verdicts on probabilities and values that a whole run may hold, claims and mutants alike: each is
# decided at the run's level divided by this number (Bonferroni), so that none is wrong by luck
# except with that probability. Identities and bounds are decided by every draw and have no level.
# A test counts them.
VERDICTS = 600
# Standard deviation of the prior of a mean over the values' own, where means are bounded.
EFFECT = 10.0


def each(confidence: float = 0.99) -> float:
    """The confidence of one verdict, where a whole run of at most `VERDICTS` shall have this one.

    >>> round(1 - each(0.99), 9)
    1.6667e-05
    """
    validate.fraction("confidence", confidence)
    return 1 - (1 - confidence) / VERDICTS


def probability_sequence(successes: int, trials: int, confidence: float) -> Interval:
    """Bounds for a success probability that hold at every number of trials at once.

    The bound p₀ is where the likelihood of a mixture over the probabilities beyond it (half of the
    mass on certainty, half uniform), divided by that of p₀, reaches 1/(1 − c). That ratio is a
    supermartingale below p₀ (above p₀, for the upper bound), so by Ville's inequality it gets there
    at any time with probability at most 1 − c. Each bound has confidence c.

    Args:
        successes: s, 0 <= s <= n.
        trials: n >= 1.
        confidence: c of each of the two one-sided bounds.

    Raises:
        ValueError: successes outside 0..trials, or a confidence outside (0, 1).

    Reference: Robbins, Statistical methods related to the law of the iterated logarithm, 1970.

    >>> found = probability_sequence(2000, 2000, 0.99)
    >>> round(found.low, 4), found.high
    (0.9974, 1.0)
    """
    validate.integer("trials", trials, least=1)
    validate.integer("successes", successes, least=0)
    validate.fraction("confidence", confidence)
    if successes > trials:
        raise ValueError(f"successes must be <= trials; got {successes} of {trials}")
    failures = trials - successes
    low = _beyond(successes, failures, confidence)
    return Interval(successes / trials, low, 1 - _beyond(failures, successes, confidence))


def _beyond(successes: int, failures: int, confidence: float) -> float:
    """The largest p₀ that the mixture over (p₀, 1] refutes; 0 where there is none."""

    def evidence(p: float) -> float:
        """ln of the mixture's likelihood over that of p."""
        s, f = successes, failures
        tail = scipy.special.betaincc(s + 1, f + 1, p)
        if tail == 0:
            return -math.inf
        uniform = scipy.special.betaln(s + 1, f + 1) + math.log(tail) - math.log1p(-p)
        at_one = 0.0 if f == 0 else -math.inf
        mixture = np.logaddexp(at_one, uniform) - math.log(2)
        return float(mixture - s * math.log(p) - f * math.log1p(-p))

    wanted, top = -math.log1p(-confidence), successes / (successes + failures)
    # The ratio falls from infinity at 0 to at most 1 where p is the estimate itself.
    low, high = 0.0, min(top, 1 - 1e-15)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if evidence(middle) >= wanted else (low, middle)
    return low


def draws_needed(probability: float, confidence: float = 0.99) -> int:
    """Draws without a failure after which a verdict of a whole run supports "probability >= p".

    >>> draws_needed(0.99)
    1156
    """
    validate.fraction("probability", probability)
    level = each(confidence)
    low, high = 1, 2
    while probability_sequence(high, high, level).low < probability:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = probability_sequence(middle, middle, level).low >= probability
        low, high = (low, middle) if enough else (middle, high)
    return high


def mean_sequence(values: np.ndarray, confidence: float) -> Interval:
    """The mean of independent Gaussian values of unknown variance, at every number of values.

    With the right Haar prior on the variance and μ/σ ~ N(0, g) against μ = 0, the Bayes factor
    [(1 + x)/(1 + x/(1+gn))]^{n/2}/√(1+gn), x = t²/(n − 1), is a supermartingale under μ = 0, and
    the interval holds the means that it does not refute at 1/(1 − c). It is two-sided. Where the
    values are not Gaussian it covers approximately, and the less so the smaller 1 − c and n: of an
    exponential law, looked at from 8 values on, it misses the mean by 7e-4 at 1 − c = 1.7e-5. Where
    all values are equal it has no width. g = `EFFECT`² is large, since what is measured
    here mostly varies little from draw to draw.

    Args:
        values: (n,), n >= 3, one per draw.
        confidence: c of the two-sided interval.

    Raises:
        ValueError: fewer than 3 values, or a confidence outside (0, 1).

    Reference: Gönen, Johnson, Lu, Westfall, The Bayesian two-sample t test, 2005; Wang and Ramdas,
    Anytime-valid t-tests and confidence sequences, 2023.
    """
    values = _series("values", values)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"an interval takes at least 3 values; got shape {values.shape}")
    validate.fraction("confidence", confidence)
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    spread = 1 + EFFECT**2 * n
    root = math.exp((math.log(spread) / 2 - math.log1p(-confidence)) * 2 / n)
    if root >= spread:  # so few values refute no mean
        return Interval(mean, -math.inf, math.inf)
    half = math.sqrt((root - 1) / (1 - root / spread) * (n - 1)) * error
    return Interval(mean, mean - half, mean + half)


def slopes(x: np.ndarray, y: np.ndarray, *, finite: bool = True) -> np.ndarray:
    """Least-squares slope of y against x for each series.

    Args:
        x: (m,) points.
        y: (m, n) values, one column per seed.
        finite: whether NaN and infinite values are refused; else the slope of their series is NaN.

    Returns:
        (n,) slopes.

    >>> slopes(np.array([0.0, 1.0, 2.0]), np.array([[1.0], [3.0], [5.0]])).round(12)
    array([2.])
    """
    validate.flag("finite", finite)
    x, y = _series("x", x), _series("y", y, finite=finite)
    if x.ndim != 1 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"slopes take x (m,) and y (m, n), m >= 2; got {x.shape} and {y.shape}")
    centred, known = x - x.mean(), np.isfinite(y)
    found = centred @ np.where(known, y, 0.0) / (centred @ centred)
    return np.where(known.all(0), found, np.nan)


def median(values: np.ndarray) -> float:
    """The median of those that are numbers; NaN, without a word, where none is.

    A claim's worst draw is seen again alone, where what is measured may be undefined.

    Raises:
        ValueError, TypeError: values that are no real numbers.

    >>> median(np.array([3.0, np.nan, 1.0, np.inf])), median(np.array([np.nan]))
    (3.0, nan)
    """
    values = _series("values", values, finite=False)
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else math.nan


def decay_rate(values: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Factor per step of a decaying series, fitted to log(values) where low < value < high.

    Args:
        values: (T, n), positive.
        low: below it rounding takes over.
        high: above it the run has not settled.

    Returns:
        (n,) factors; NaN for a series with fewer than 4 values in the window.
    """
    values = _series("values", values, finite=False)
    if values.ndim != 2:
        raise ValueError(f"values must be (T, n), one column per seed; got {values.shape}")
    low, high = validate.number("low", low), validate.number("high", high)
    found = np.full(values.shape[1], np.nan)
    for i, series in enumerate(values.T):
        steps = np.flatnonzero((series > low) & (series < high))
        if len(steps) >= 4:
            log = np.log(series[steps])[:, None]
            found[i] = math.exp(slopes(steps.astype(float), log)[0])
    return found


def _series(name: str, given: Any, *, finite: bool = True) -> np.ndarray:
    """Real numbers in one or two dimensions, as float64."""
    if isinstance(given, (list, tuple)):
        given = np.array(given)
    found = validate.tensor(name, given, least_dims=1, integers=True, finite=finite)
    return found.detach().cpu().numpy().astype(np.float64)
