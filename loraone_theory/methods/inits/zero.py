"""Full fine-tuning starts at W: ΔW₀ = 0."""

from __future__ import annotations

from loraone_theory.methods.inits.base import Init
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def zero() -> Init:
    """ΔW₀ = 0 (d×k)."""

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        return Start((problem.like.new_zeros(problem.d, problem.k),))

    return init
