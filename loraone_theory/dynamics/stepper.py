"""What advances a batch of runs.

A stepper owns the trainable tensors and the rule's state; what it shows in `params` is good until
the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from torch import Tensor

from loraone_theory.core.arrays import all_finite
from loraone_theory.core.factors import Params
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.told import Told
from loraone_theory.methods.rules.base import State


class Stepper(Protocol):
    """The state of a batch of runs, and one step of all of them."""

    params: Params
    state: State

    def watch(
        self,
        records: Mapping[str, Record],
        at: np.ndarray,
        threads: int,
        pool: ThreadPoolExecutor,
    ) -> dict[str, Tensor]:
        """What of the records at these steps `steps` itself fills from now on, by name."""
        return {}

    def tell(self, steps: Sequence[int]) -> Told | None:
        """The losses, (*batch) each, that the steps from those t on will tell at little cost.

        A step that makes the residuals for its gradients has the loss besides.
        """
        return None

    def settle(self) -> None:
        """What has been seen for records and losses is in its place from now on."""

    def step(self, t: int) -> None:
        """Advance from t to t + 1, measuring nothing."""

    def steps(self, first: int, stop: int) -> None:
        """Advance from first to stop, measuring what was asked for."""
        for t in range(first, stop):
            self.step(t)

    def finite(self) -> bool:
        """Whether no entry of the trainable tensors is NaN or infinite."""
        return all_finite(*self.params)

    def saved(self) -> tuple[Params, State]:
        """The present state, to come back to."""

    def load(self, params: Params, state: State) -> None:
        """Go on from a saved state."""
