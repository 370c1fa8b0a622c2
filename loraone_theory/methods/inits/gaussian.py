"""LoRA-init: A₀ Gaussian, B₀ = 0."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Scalar
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods.inits.base import Init
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def gaussian(std: Scalar) -> Init:
    """A₀ i.i.d. N(0, α²) with α = `std`, B₀ = 0; no offset."""
    std = validate.standard_deviation("std", std)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        A = per_seed(lambda rng: normal(rng, problem.d, rank), seeds, "A0", problem.like)
        B = A.new_zeros(A.shape[0], rank, problem.k)
        size = std.to(A) if isinstance(std, Tensor) else std
        return Start((size * A, B))

    return init
