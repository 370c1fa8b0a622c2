"""Losses that come with the gradients of the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# What so many steps saw is made into losses at once, and no more numbers than this.
TOGETHER, NUMBERS = 64, 1 << 19


class Told:
    """Losses of some steps, made of what those saw, of many at once.

    Args:
        steps: which.
        made: the losses (steps, *batch) of what several steps saw, stacked.
        unknown: (*batch) in place of the loss at a step that was not taken.
    """

    def __init__(
        self, steps: Sequence[int], made: Callable[[Tensor], Tensor], unknown: Tensor
    ) -> None:
        self._made = made
        self._rows = {t: row for row, t in enumerate(steps)}
        self._seen: dict[int, Tensor] = {}
        self.losses = unknown.repeat(len(steps), *[1] * unknown.ndim)  # (steps, *batch)

    def __contains__(self, t: int) -> bool:
        return t in self._rows

    def __getitem__(self, t: int) -> Tensor:
        self.settle()
        return self.losses[self._rows[t]]

    def see(self, t: int, seen: Tensor) -> None:
        """Take what is seen at time t."""
        self._seen[t] = seen
        if len(self._seen) == TOGETHER or len(self._seen) * seen.numel() >= NUMBERS:
            self.settle()

    def settle(self) -> None:
        """The losses of all that has been seen, to their places."""
        if self._seen:
            found = self._made(torch.stack(list(self._seen.values())))
            for t, losses in zip(self._seen, found, strict=True):
                self.losses[self._rows[t]].copy_(losses)
            self._seen = {}
