"""Loss curves: the distance to a floor, when it is small, and how fast it falls."""

from __future__ import annotations

import math

import numpy as np

# How far the distance to the floor has to fall, relative to t = 0.
TARGET = 1e-6
# Roundings of the loss and of the floor that their difference may hold, in eps of the floor.
ROUNDINGS = 16


def distance(
    loss: np.ndarray, floor: np.ndarray, whole: np.ndarray | float = math.nan
) -> np.ndarray:
    """√((L_t − floor)/(L_0 − floor)), (T + 1, ..., seeds); infinite where a run has diverged.

    An excess below the rounding of the floor is not known: it counts as that rounding, and as zero
    where the loss is far below the floor, which then was none. A run whose first excess is zero to
    rounding began at the floor, and is compared with `whole` instead.

    Args:
        loss: (T + 1, ..., seeds).
        floor: broadcasts to (..., seeds).
        whole: the loss before anything is learned, beside which the square of rounding is zero;
            NaN where it is not known, and zero alone is zero.
    """
    least, start = _least(loss, floor), _start(loss, floor, whole)
    excess = np.where(np.isnan(loss), math.inf, np.maximum(loss - floor, least))
    excess = np.where(loss < floor - np.finfo(loss.dtype).eps ** 0.5 * np.abs(floor), 0.0, excess)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        found = np.sqrt(excess / start)
    return np.where(excess == 0, 0.0, np.where(np.isposinf(excess), math.inf, found))


def resolution(
    loss: np.ndarray, floor: np.ndarray, whole: np.ndarray | float = math.nan
) -> np.ndarray:
    """The least distance that the loss can tell from zero, (..., seeds); 0 at a floor of 0."""
    least = _least(loss, floor)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(least == 0, 0.0, np.sqrt(least / _start(loss, floor, whole)))


def _least(loss: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """The rounding of the difference; none at a floor of 0, where nothing cancels."""
    return ROUNDINGS * np.finfo(loss.dtype).eps * np.abs(floor) + np.zeros_like(loss[0])


def _start(loss: np.ndarray, floor: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """L_0 − floor, or `whole` where that is zero to rounding."""
    first, least = loss[0] - floor, _least(loss, floor)
    known = np.nan_to_num(whole) + np.zeros_like(first)
    squared = (ROUNDINGS * np.finfo(loss.dtype).eps) ** 2 * known
    return np.where(first <= np.maximum(least, squared), known, first)


def reached(excess: np.ndarray, target: float | np.ndarray = TARGET) -> np.ndarray:
    """The first t with a distance of `target`, NaN where there is none, (..., seeds)."""
    inside = excess <= target
    return np.where(inside.any(0), inside.argmax(0), math.nan)


def measured_rate(excess: np.ndarray, resolved: float | np.ndarray = 0.0) -> np.ndarray:
    """(e_t/e_{t/2})^{2/t} at the first t with e_t <= `TARGET`, else at the end, (seeds,).

    Where the loss resolves no distance below `resolved`, at the first t that comes to it.
    """
    trials = np.arange(excess.shape[-1])
    arrived = reached(excess, np.maximum(resolved, TARGET))
    last = np.where(np.isfinite(arrived), arrived, len(excess) - 1).astype(int)
    half = last // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = excess[last, trials] / excess[half, trials]
        rate = ratio ** (1 / np.maximum(last - half, 1))
    return np.where(np.isfinite(rate) & (rate > 0), rate, math.nan)


def decay(
    steps: np.ndarray, loss: np.ndarray, floor: np.ndarray, rate: np.ndarray, *, start: float = 0.1
) -> np.ndarray:
    """floor + (L_a − floor)·rate^{2(t − a)}: a loss that falls at a local rate from step a on.

    a is the first recorded step at which the distance to the floor is `start` times that at t = 0,
    where the rate can be expected to hold; NaN before it, and everywhere in a run that never gets
    there. The rate is a prediction, the height at a is the run's.

    Args:
        steps: (T,) the recorded t.
        loss: (T, seeds).
        floor: (seeds,).
        rate: of √(L_t − floor), per step, (seeds,).
        start: the distance at a.

    Returns:
        (T, seeds).

    >>> decay(np.arange(3), np.array([[100.0], [1.0], [0.5]]), np.zeros(1), np.full(1, 0.5))
    array([[ nan],
           [1.  ],
           [0.25]])
    """
    excess = distance(loss, floor)
    first = reached(excess, start)
    known = np.isfinite(first)
    a = np.where(known, first, 0).astype(int)
    height = loss[a, np.arange(len(a))] - floor
    gone = steps[:, None] - steps[a]
    with np.errstate(over="ignore"):
        line = floor + height * rate ** (2.0 * gone)
    return np.where(known & (gone >= 0), line, math.nan)
