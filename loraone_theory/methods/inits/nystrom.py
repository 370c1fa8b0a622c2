"""Nystrom initialisation: A from a random sketch of the one-step gradient, B zero."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.core.factors import Factors
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods.inits.base import Init
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def nystrom() -> Init:
    """A₀ = GΩ/√k with Ω (k×r) i.i.d. N(0, 1), B₀ = 0; no offset.

    The columns of A₀ lie in the range of G: where r >= r* and G = Δ, one step of preconditioned
    descent with η = 1 and pseudo-inverses ends at Δ.

    Reference: NoRA, arXiv 2410.18965, with G in place of the unknown Δ.
    """

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        G, k = problem.one_step_gradient(), problem.k
        sketch = per_seed(lambda rng: normal(rng, k, rank), seeds, "sketch", problem.like)
        A = _times(G, sketch) / k**0.5
        return Start((A, A.new_zeros(*A.shape[:-2], rank, k)))

    return init


def _times(G: Tensor | Factors | Implicit, N: Tensor) -> Tensor:
    if isinstance(G, Implicit):
        return G.right(N)
    return G.A @ (G.B @ N) if isinstance(G, Factors) else G @ N
