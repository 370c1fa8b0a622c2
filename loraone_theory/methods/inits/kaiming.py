"""LoRA-init as libraries do it: A₀ uniform, B₀ = 0."""

from __future__ import annotations

from loraone_theory.core.randomness import per_seed
from loraone_theory.methods.inits.base import Init, refuse_unknown_basis
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def kaiming() -> Init:
    """A₀ i.i.d. uniform on ±1/√d (Kaiming's with a = √5), B₀ = 0; no offset.

    Raises:
        ValueError: the problem is known up to a rotation only, and uniform entries are not
            rotation-invariant.
    """

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        refuse_unknown_basis(problem, "kaiming")
        bound = problem.d**-0.5
        A = per_seed(
            lambda rng: rng.uniform(-bound, bound, (problem.d, rank)), seeds, "A0", problem.like
        )
        return Start((A, A.new_zeros(A.shape[0], rank, problem.k)))

    return init
