"""4.8: PEFT's LoRA-GA is not the official one."""

from __future__ import annotations

import numpy as np

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.core.randomness import generator, normal
from loraone_theory.problems.linear.problem import LinearProblem

D, K, SAMPLES, TRUE_RANK, RANK, GAMMA = 14, 12, 60, 8, 3, 16.0
EPS = np.finfo(np.float64).eps


def peft_factors(gradient: np.ndarray, rank: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """A₀ = U_{1:r}, B₀ = ζ S_{r+1:2r}V_{r+1:2r}ᵀ, ζ = k^{1/4}/√γ ("ArB2r", "stable").

    PEFT takes B's directions times their singular values, and puts ζ on B alone; the official
    A₀ = ζU_{1:r}, B₀ = ζV_{r+1:2r}ᵀ has no singular values and ζ on both.

    Args:
        gradient: ∇_W L (d, k), inputs by outputs.
        rank: r.
        gamma: γ.
    """
    U, S, Vt = np.linalg.svd(gradient, full_matrices=False)
    zeta = gradient.shape[1] ** 0.25 / gamma**0.5
    chosen = slice(rank, 2 * rank)
    return U[:, :rank], zeta * S[chosen, None] * Vt[chosen]


def _products(draws: Draws, *, any_scale: bool) -> Evidence:
    """‖A₀B₀ of PEFT − that of LoRA-GA‖ over the latter, the sign of the directions aside."""
    found, balance, exact = [], [], []
    for seed in draws.seeds():
        rng = generator(seed, "4.8")
        X = normal(rng, SAMPLES, D)
        for true_rank in (TRUE_RANK, RANK):
            shift = normal(rng, D, true_rank) @ normal(rng, true_rank, K)
            problem = LinearProblem.from_data(X, shift=shift)
            method = methods.lora_ga(gamma=GAMMA)
            A, B = (t.numpy() for t in method.init(problem, RANK, (seed,)).trainable)
            A_peft, B_peft = peft_factors(-X.T @ X @ shift / SAMPLES, RANK, GAMMA)
            official, theirs = np.linalg.norm(A @ B), np.linalg.norm(A_peft @ B_peft)
            if true_rank == RANK:
                exact.append(theirs / official)
                continue
            # |A₀B₀| by its weights on the pairs (u_i, v_{r+i}): signs of pairs are a convention.
            mine = np.linalg.norm(A, axis=0) * np.linalg.norm(B, axis=1)
            other = np.linalg.norm(A_peft, axis=0) * np.linalg.norm(B_peft, axis=1)
            scale = (mine @ other) / (other @ other) if any_scale else 1.0
            found.append(np.linalg.norm(scale * other - mine) / np.linalg.norm(mine))
            balance.append(np.linalg.norm(B_peft) / np.linalg.norm(A_peft))
    numbers = {
        "mean relative distance": float(np.mean(found)),
        "mean ‖B₀‖_F/‖A₀‖_F of PEFT, 1 officially": float(np.mean(balance)),
        "largest ‖A₀B₀‖_F of PEFT over the official one, r = r*": float(np.max(exact)),
    }
    return Evidence(np.array(found), 0.0, tolerance=EPS * D * K, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/discrepancies/peft-lora-ga",
        aliases=("4.8",),
        title="PEFT's LoRA-GA starts where the official one does",
        reference="LoRA-GA in PEFT, against its released code",
        statement="PEFT's A₀B₀ is that of LoRA-GA: ζ²U_{1:r}V_{r+1:2r}ᵀ with ζ = k^{1/4}/√γ.",
        hypotheses=("direction ArB2r, scale stable",),
        how=f"PEFT's formulas written out, d = {D}, k = {K}, r = {RANK}, ∇L of rank {TRUE_RANK}.",
        kind="identity",
        measure=lambda draws: _products(draws, any_scale=False),
        mutant_statement="up to one factor",
        mutant=lambda draws: _products(draws, any_scale=True),
        trials=200,
        smoke_trials=20,
        expected=Finding.VIOLATED,
        explanation=(
            "PEFT multiplies B₀ by the singular values and puts ζ on B₀ alone: its product is "
            "ζU_{1:r}S_{r+1:2r}V_{r+1:2r}ᵀ. In the noiseless linear model with r ≥ r* those "
            "singular values are 0, so its B₀ vanishes."
        ),
    ),
)
