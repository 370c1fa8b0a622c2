"""LoRA-GA: A from the first r singular directions of the gradient, B from the next r."""

from __future__ import annotations

from loraone_theory.factors import Factors
from loraone_theory.inits.base import Init, complete_frame, gradient_svd
from loraone_theory.linalg import EXACT, SVDOptions
from loraone_theory.parametrisations import Start
from loraone_theory.problems.base import Problem


def lora_ga(gamma: float = 16.0, scale: float = 1.0, svd: SVDOptions = EXACT) -> Init:
    """A₀ = ζU_{1:r}, B₀ = ζV_{r+1:2r}ᵀ with ζ = k^{1/4}/√γ; offset s A₀B₀ ("ArB2r").

    Directions beyond the rank of G are a random orthonormal completion, drawn per seed.

    Raises:
        ValueError: 2r > min(d, k).
    """

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        d, k = problem.d, problem.k
        if 2 * rank > min(d, k):
            raise ValueError(
                "lora-ga takes 2r singular directions: rank must satisfy 2 * rank <= min(d, k); "
                f"got rank={rank} with d={d}, k={k}; lower the rank"
            )
        U, S, V = gradient_svd(problem, 2 * rank, svd)
        U = complete_frame(U[..., :rank], S[..., :rank], seeds, "LoRA-GA left")
        V = complete_frame(V, S, seeds, "LoRA-GA right")
        zeta = k**0.25 / gamma**0.5
        A, B = zeta * U, zeta * V[..., rank:].mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init
