"""Alg. 1: which full-gradient step the released initialisation is."""

from __future__ import annotations

import math

import numpy as np

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.randomness import generator, normal
from loraone_theory.methods import Alpha
from loraone_theory.problems.linear.problem import LinearProblem

D, K, SAMPLES, TRUE_RANK, RANK, ALPHA, GAMMA = 14, 11, 60, 5, 3, 16.0, 128.0
EPS = np.finfo(np.float64).eps


def _step(draws: Draws, *, normalised: bool) -> Evidence:
    """Distance of s A₀B₀ from s/(γσ₁) times the best rank-r part of −∇L, relative."""
    found, losses, conditions = [], [], []
    for seed in draws.seeds():
        rng = generator(seed, "Algorithm 1")
        X, W = normal(rng, SAMPLES, D), normal(rng, D, K)
        shift = normal(rng, D, TRUE_RANK) @ normal(rng, TRUE_RANK, K)
        labels = X @ (W + shift)
        U, S, Vt = np.linalg.svd(X.T @ (labels - X @ W) / SAMPLES)  # −∇_W L at W
        best = U[:, :RANK] * S[:RANK] @ Vt[:RANK]
        # s = α/√r, so that the step s/(γσ₁) is α/(γ√r σ₁).
        step = ALPHA / (GAMMA * math.sqrt(RANK)) * best / (S[0] if normalised else 1.0)
        method = methods.lora_one_released(gamma=GAMMA, scale=Alpha(ALPHA, stabilised=True))
        resolved = methods.get(method, RANK)
        problem = LinearProblem.from_data(X, shift=shift, pretrained=W)
        A, B = (t.numpy() for t in resolved.init(problem, RANK, (0,)).trainable)
        found.append(np.linalg.norm(resolved.scale * A @ B - step) / np.linalg.norm(step))
        losses.append(np.linalg.norm(X @ (W + step) - labels) / np.linalg.norm(X @ W - labels))
        conditions.append(S[0] / (S[RANK - 1] - S[RANK]))
    # The subspaces of two SVDs agree to eps·σ₁ over the gap below σ_r.
    return Evidence(
        np.array(found),
        0.0,
        tolerance=EPS * D * K * np.array(conditions),
        numbers={"mean ‖residual‖ after the step over before": float(np.mean(losses))},
    )


CLAIMS = (
    Claim(
        id="lora-one/algorithm-1",
        aliases=("Alg. 1",),
        title="The released initialisation is a full-gradient step of length s/(γσ₁)",
        reference="Algorithm 1",
        statement=(
            "s A₀B₀ = (s/(γσ₁)) · (best rank-r part of −∇L), σ₁ its top singular value; with "
            "s = α/√r the learning rate is α/(γ√r σ₁), another one in every layer."
        ),
        hypotheses=("A₀ = U_r(S_r/σ₁)^½/√γ, B₀ = (S_r/σ₁)^½V_rᵀ/√γ, W unchanged",),
        how=(
            f"Linear model, d = {D}, k = {K}, N = {SAMPLES}, r = {RANK} < r* = {TRUE_RANK}, "
            f"α = {ALPHA:g}, γ = {GAMMA:g}; gradient from X, Y and W, its SVD by another library."
        ),
        kind="identity",
        measure=lambda draws: _step(draws, normalised=True),
        mutant_statement="learning rate α/(γ√r), without σ₁",
        mutant=lambda draws: _step(draws, normalised=False),
        trials=300,
        smoke_trials=30,
    ),
)
