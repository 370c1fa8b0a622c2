"""LoRA-GA: A and B from different singular directions of the gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.core.randomness import per_seed
from loraone_theory.methods.inits.base import Init, complete_frame, gradient_svd, pretrained
from loraone_theory.methods.parametrisations import Start
from loraone_theory.problems.base import Problem

Direction = Literal["ArB2r", "ArBr", "A2rBr", "random"]
Size = Literal["stable", "gd", "unit", "weightS"]


def lora_ga(
    gamma: float = 16.0,
    scale: float = 1.0,
    direction: Direction = "ArB2r",
    size: Size = "stable",
    svd: SVDOptions = EXACT,
) -> Init:
    """A₀ = ζU_I, B₀ = ζV_Jᵀ for disjoint sets I, J of r among the first 2r triplets of G; offset.

    Directions: "ArB2r" I = 1..r, J = r+1..2r; "A2rBr" the reverse; "ArBr" alternately, J first;
    "random" a random split per seed. Sizes: "stable" ζ = k^{1/4}/√γ; "gd" 1/s; "unit" 1;
    "weightS" the mean of √(σ_i(W)/s) over i <= r. Directions beyond the rank of G are a random
    orthonormal completion, drawn per seed.

    Raises:
        ValueError: 2r > min(d, k), an unknown name, or "weightS" where W is not known.
    """
    validate.choice("direction", direction, ("ArB2r", "ArBr", "A2rBr", "random"))
    validate.choice("size", size, ("stable", "gd", "unit", "weightS"))
    gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        d, k = problem.d, problem.k
        if 2 * rank > min(d, k):
            raise ValueError(
                "lora-ga takes 2r singular directions: rank must satisfy 2 * rank <= min(d, k); "
                f"got rank={rank} with d={d}, k={k}; lower the rank"
            )
        U, S, V = gradient_svd(problem, 2 * rank, svd)
        U = complete_frame(U, S, seeds, "LoRA-GA left")
        V = complete_frame(V, S, seeds, "LoRA-GA right")
        pick = _selection(direction, rank, seeds, problem.like)
        zeta = _zeta(size, problem, rank, gamma, scale)
        A, B = zeta * (U @ pick[..., :rank]), zeta * (V @ pick[..., rank:]).mT
        return Start((A, B), offset=Factors(scale * A, B))

    return init


def _selection(direction: Direction, rank: int, seeds: tuple[int, ...], like: Tensor) -> Tensor:
    """A permutation matrix (2r, 2r), one per seed where random: columns I first, then J."""
    first, last = np.arange(rank), np.arange(rank, 2 * rank)
    eye = np.eye(2 * rank)
    if direction == "random":
        return per_seed(lambda rng: eye[rng.permutation(2 * rank)].T, seeds, "LoRA-GA split", like)
    order = {
        "ArB2r": np.concatenate([first, last]),
        "A2rBr": np.concatenate([last, first]),
        "ArBr": np.concatenate([2 * first + 1, 2 * first]),
    }[direction]
    return torch.from_numpy(eye[order].T).to(like)


def _zeta(size: Size, problem: Problem, rank: int, gamma: float, scale: float) -> float | Tensor:
    if size == "weightS":
        S = linalg.truncated_svd(pretrained(problem, "lora-ga of size weightS"), rank).S
        return (S / scale).sqrt().mean(-1)[..., None, None]
    return {"stable": problem.k**0.25 / gamma**0.5, "gd": 1 / scale, "unit": 1.0}[size]
