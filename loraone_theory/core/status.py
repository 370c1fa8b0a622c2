"""How a run ended: a value whose text is advice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The ways a run can end; the value is a message with what to do about it."""

    COMPLETED = "Completed: every step is finite."
    TRUNCATED = (
        "Completed, but in {count} steps (the last at step {step}) an undamped Gram matrix was "
        "singular and its pseudo-inverse dropped directions: expected where B = 0 or the rank "
        "exceeds the true rank; otherwise set damping > 0."
    )
    DIVERGED = (
        "Non-finite factors or loss at step {step}: lower the learning rate or raise the damping."
    )
    GROWING = (
        "The loss is {factor:.3g} times its start at step {step}, and the run would not get there: "
        "lower the learning rate or raise the damping."
    )
    OSCILLATING = (
        "The loss goes up and down without settling, by {factor:.3g} of its start in the last "
        "steps up to {step}: lower the learning rate, or let it decay."
    )


@dataclass(frozen=True)
class RunStatus:
    """How one run ended.

    Args:
        outcome: which way.
        step: the step the outcome refers to, 0 where none.
        count: in how many steps it occurred, 0 where that has no meaning.
        factor: the size of it beside the loss at t = 0, 0 where that has no meaning.
    """

    outcome: Outcome
    step: int = 0
    count: int = 0
    factor: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the run did what it was meant to: every step finite, and the loss no larger."""
        return self.outcome in (Outcome.COMPLETED, Outcome.TRUNCATED)

    @property
    def message(self) -> str:
        """The outcome in words, with advice."""
        return self.outcome.value.format(step=self.step, count=self.count, factor=self.factor)

    def __repr__(self) -> str:
        at = "" if self.outcome is Outcome.COMPLETED else f", step={self.step}"
        return f"RunStatus({self.outcome.name}{at})"

    def __str__(self) -> str:
        return self.message
