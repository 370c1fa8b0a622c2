"""Statistics of verdicts: success probabilities, trials needed, slopes and means with intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy

from loraone_theory.core import validate


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def clopper_pearson(successes: int, trials: int, confidence: float = 0.99) -> Interval:
    """Exact one-sided bounds for a success probability: each holds with probability `confidence`.

    low = I⁻¹(1 − c; s, n − s + 1), high = I⁻¹(c; s + 1, n − s), I the regularised incomplete beta
    function.

    Raises:
        ValueError: successes outside 0..trials, or a confidence outside (0, 1).

    >>> round(clopper_pearson(459, 459).low, 4)
    0.99
    """
    validate.integer("trials", trials, least=1)
    validate.integer("successes", successes, least=0)
    _check_fraction("confidence", confidence)
    if successes > trials:
        raise ValueError(f"successes must be <= trials; got {successes} of {trials}")
    failures = trials - successes
    low = (
        0.0
        if successes == 0
        else float(scipy.special.betaincinv(successes, failures + 1, 1 - confidence))
    )
    high = (
        1.0
        if failures == 0
        else float(scipy.special.betaincinv(successes + 1, failures, confidence))
    )
    return Interval(successes / trials, low, high)


def trials_needed(probability: float, confidence: float = 0.99) -> int:
    """Trials without a failure that show "probability >= p": the least n with pⁿ <= 1 − c.

    >>> trials_needed(0.99)
    459
    """
    _check_fraction("probability", probability)
    _check_fraction("confidence", confidence)
    return math.ceil(math.log(1 - confidence) / math.log(probability))


def mean_interval(
    values: np.ndarray, confidence: float = 0.99, *, resamples: int = 4000, seed: int = 0
) -> Interval:
    """The mean of independent values, with a two-sided bootstrap-t interval.

    Bootstrap-t keeps its coverage for a dozen values, where percentiles of resampled means are too
    short.

    Args:
        values: (n,), n >= 3, one per seed.
        confidence: of the two-sided interval.
        resamples: bootstrap draws.
        seed: of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"an interval takes at least 3 values; got shape {values.shape}")
    _check_fraction("confidence", confidence)
    n, mean = len(values), float(values.mean())
    error = values.std(ddof=1) / math.sqrt(n)
    # Spread at the level of rounding: the resampled t values would be quotients of noise.
    if error <= 8 * np.finfo(np.float64).eps * abs(mean):
        return Interval(mean, mean, mean)
    draws = values[np.random.default_rng(seed).integers(n, size=(resamples, n))]
    spread = draws.std(axis=1, ddof=1) / math.sqrt(n)
    t = (draws.mean(axis=1) - mean)[spread > 0] / spread[spread > 0]
    tail = (1 - confidence) / 2
    upper, lower = np.quantile(t, [tail, 1 - tail])
    return Interval(mean, mean - float(lower) * error, mean - float(upper) * error)


def slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of y against x for each series.

    Args:
        x: (m,) points.
        y: (m, n) values, one column per seed.

    Returns:
        (n,) slopes.

    >>> slopes(np.array([0.0, 1.0, 2.0]), np.array([[1.0], [3.0], [5.0]])).round(12)
    array([2.])
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"slopes take x (m,) and y (m, n), m >= 2; got {x.shape} and {y.shape}")
    centred = x - x.mean()
    return centred @ y / (centred @ centred)


def decay_rate(values: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Factor per step of a decaying series, fitted to log(values) where low < value < high.

    Args:
        values: (T, n), positive.
        low: below it rounding takes over.
        high: above it the run has not settled.

    Returns:
        (n,) factors; NaN for a series with fewer than 4 values in the window.
    """
    values = np.asarray(values, dtype=np.float64)
    found = np.full(values.shape[1], np.nan)
    for i, series in enumerate(values.T):
        steps = np.flatnonzero((series > low) & (series < high))
        if len(steps) >= 4:
            log = np.log(series[steps])[:, None]
            found[i] = math.exp(slopes(steps.astype(float), log)[0])
    return found


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1; got {value}")
