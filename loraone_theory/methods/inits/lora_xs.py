"""LoRA-XS: frozen singular frames of W, trained r×r core."""

from __future__ import annotations

from loraone_theory.core import linalg, validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods.inits.base import Init, pretrained
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem


def lora_xs(core_std: float = 1e-5, svd: SVDOptions = EXACT) -> Init:
    """A = U_rΣ_r, B = V_rᵀ of W frozen, R₀ i.i.d. N(0, `core_std`²); no offset.

    Raises:
        ValueError: the problem does not know W.
    """
    core_std = validate.number("core_std", core_std, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        U, S, V = linalg.truncated_svd(pretrained(problem, "lora-xs"), rank, svd)
        R = per_seed(lambda rng: normal(rng, rank, rank), seeds, "R0", problem.like)
        return Start((core_std * R,), frozen=(U * S[..., None, :], V.mT))

    return init
