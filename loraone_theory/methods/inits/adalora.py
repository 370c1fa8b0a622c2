"""AdaLoRA's start: small Gaussian P and Q, λ = 0."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods.inits.base import Init
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def adalora(init_std: float = 0.02) -> Init:
    """P₀ (d×r) and Q₀ (r×k) i.i.d. N(0, `init_std`²), λ₀ = 0 (1×r); no offset."""
    init_std = validate.number("init_std", init_std, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        P = per_seed(lambda rng: normal(rng, problem.d, rank), seeds, "P0", problem.like)
        Q = per_seed(lambda rng: normal(rng, rank, problem.k), seeds, "Q0", problem.like)
        return Start((init_std * P, P.new_zeros(P.shape[0], 1, rank), init_std * Q))

    return init
