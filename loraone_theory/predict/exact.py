"""Whether labels are those of the true shift."""

from __future__ import annotations

from loraone_theory.core import linalg
from loraone_theory.predict.tangent_map import tiny
from loraone_theory.problems.sensing.problem import SensingProblem


def fits_exactly(problem: SensingProblem) -> bool:
    """Whether the labels are those of the true shift, to rounding."""
    if problem.shift is None:
        return False
    miss = problem.operator.forward(problem.shift) - problem.labels
    gap = linalg.relative_norm(miss[..., None], problem.labels[..., None])
    return bool((gap <= tiny(miss)).all())
