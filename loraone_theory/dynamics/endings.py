"""How runs ended, from the loss at their start and in their last steps.

OSCILLATING: in the last `WINDOW` steps the loss turns at least twice, its range is above `SWING`
times its start and above rounding, and its peaks do not grow (that is GROWING or a divergence).
AdamW at a constant rate ends so where its last steps are that large. With minibatches single steps
scatter around a level: means over `STRETCHES` stretches of `STRETCH` steps stand for the steps, and
the largest has to be above `GROWTH` times the smallest too, so that a noise floor is not meant.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.status import Outcome, RunStatus

# A run whose loss ends at more than this multiple of its start is GROWING.
GROWTH = 2.0
# A run whose loss moves up and down by more than this multiple of its start is OSCILLATING.
SWING = 1e-3
# The last steps that are looked at.
WINDOW = 6
# With minibatches, means over so many stretches of so many steps are looked at.
STRETCHES, STRETCH = 4, 8
NEVER = -1
COMPLETED = RunStatus(Outcome.COMPLETED)


def count(*, minibatches: bool) -> int:
    """How many of the last steps are looked at."""
    return STRETCHES * STRETCH if minibatches else WINDOW + 1


def window(first: int, last: int, *, minibatches: bool = False) -> np.ndarray:
    """The last steps, at which the loss is looked at, of those from `first` on."""
    return np.arange(max(first, last + 1 - count(minibatches=minibatches)), last + 1)


def quiet(diverged_at: Tensor, losses: Tensor, drops: tuple[Tensor, Tensor] | None) -> bool:
    """Whether nothing is to be told: no run diverged, dropped directions, grew, or ever rose.

    For the arguments of `judge`, which then says COMPLETED of every run.
    """
    if bool((diverged_at != NEVER).any()) or (drops is not None and bool(drops[0].any())):
        return False
    start, tail = losses[0].numpy(), losses[1:].numpy()
    with np.errstate(all="ignore"):
        return bool((tail[1:] <= tail[:-1]).all() and (tail[-1] <= GROWTH * start).all())


def judge(
    diverged_at: Tensor,
    losses: Tensor,
    scale: Tensor,
    drops: tuple[Tensor, Tensor] | None,
    last: int,
    *,
    minibatches: bool = False,
) -> np.ndarray:
    """One RunStatus per run.

    Args:
        diverged_at: (*batch) the step, or `NEVER`.
        losses: (steps, *batch) at t = 0 and at the steps of `window`.
        scale: (*batch) the loss at W; changes below its rounding are not looked at.
        drops: per run, the number of steps in which a pseudo-inverse dropped directions, and the
            last of them.
        last: the last step.
        minibatches: the steps took some of the rows.
    """
    if minibatches:
        parts = losses[1:].tensor_split(min(STRETCHES, len(losses) - 1))
        losses = torch.stack([losses[0], *(part.mean(0) for part in parts)])
    steps, whole = diverged_at.numpy(), losses.numpy()
    with np.errstate(all="ignore"):
        growing, growth, swinging, swings = _motion(whole, scale.numpy(), minibatches=minibatches)
    zero = torch.zeros_like(diverged_at)
    counts = (zero, zero) if drops is None else tuple(c.cpu().expand_as(zero) for c in drops)
    answer = np.full(steps.shape, COMPLETED, dtype=object)
    noted = (steps != NEVER) | swinging | growing | (counts[0] != 0).numpy()
    for index in zip(*np.nonzero(noted), strict=True):
        if (step := int(steps[index])) != NEVER:
            answer[index] = RunStatus(Outcome.DIVERGED, step)
        elif bool(swinging[index]):
            answer[index] = RunStatus(Outcome.OSCILLATING, last, factor=float(swings[index]))
        elif growing[index]:
            answer[index] = RunStatus(Outcome.GROWING, last, factor=float(growth[index]))
        else:
            answer[index] = RunStatus(
                Outcome.TRUNCATED, int(counts[1][index]), int(counts[0][index])
            )
    return answer


def _motion(
    losses: np.ndarray, scale: np.ndarray, *, minibatches: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which runs grow, by what factor, which ones swing, by what multiple of the start."""
    start, tail = losses[0], losses[1:]
    noise = np.finfo(losses.dtype).eps * np.maximum(start, scale)
    growth = np.where(tail[-1] > noise, tail[-1] / start, 0.0)
    low, high = tail.min(0), tail.max(0)
    swing, moves = high - low, np.diff(tail, axis=0)
    back = ((moves[1:] * moves[:-1]) < 0).sum(0)
    swinging = (swing > SWING * start) & (swing > noise) & (back >= 2) & _bounded(tail)
    if minibatches:
        swinging &= high > GROWTH * low
    return growth > GROWTH, growth, swinging, swing / start


def _bounded(tail: np.ndarray) -> np.ndarray:
    """The peaks of the second half are no larger than twice those of the first."""
    half = (len(tail) + 1) // 2
    return tail[half:].max(0) <= GROWTH * tail[:half].max(0) if half < len(tail) else tail[0] >= 0
