"""4.3: LoRA-One named two methods over time."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.methods import Method
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK, RATIO = 24, 18, 4, 3, 16
EPS = np.finfo(np.float64).eps


def _first_shift(draws: Draws, early: Method, today: Method) -> Evidence:
    """What each adds to W at t = 0: promised nothing, and the best rank-r part of G."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=RATIO * D, condition_number=3.0, seeds=seeds
    )
    U, S, V = linalg.truncated_svd(problem.one_step_gradient().dense(), RANK)
    step = U * S[..., None, :] @ V.mT
    gaps, losses = [], []
    for method, promised in ((early, torch.zeros_like(step)), (today, step)):
        start = method.init(problem, RANK, seeds)
        shift = Factors(*start.trainable)
        if start.offset is not None:
            shift = concatenate(shift, Factors(-start.offset.A, start.offset.B))
        gaps.append(torch.linalg.matrix_norm(shift.dense() - promised).numpy())
        losses.append(float(problem.loss(shift).mean()))
    numbers = {
        "mean loss at t = 0, early": losses[0],
        "mean loss at t = 0, today's": losses[1],
        "mean ‖best rank-r part of G‖_F": float(torch.linalg.matrix_norm(step).mean()),
    }
    # Two SVDs of one matrix, whose subspaces agree to eps over the gap below λ_r(G); Δ has gaps of
    # 3^{−1/3} and the factors of the early method have norm below 2.
    return Evidence(np.concatenate(gaps), 0.0, tolerance=EPS * D * K * 10, numbers=numbers)


EARLY, TODAY = methods.lora_one_early(gamma=4.0), methods.lora_one()

CLAIMS = (
    Claim(
        id="lora-one/discrepancies/two-lora-ones",
        aliases=("4.3",),
        title="LoRA-One named two methods",
        reference="First notebook, against Algorithm 1 and Spectral-init",
        statement=(
            "The first notebook's LoRA-One, k^{1/4}γ^{−1/2} times U_r and V_rᵀ with an offset, "
            "leaves the function unchanged at t = 0; today's, without offset, starts one rank-r "
            "gradient step away."
        ),
        hypotheses=(),
        how=f"Linear model, d = {D}, k = {K}, N = {RATIO}d, r = {RANK} < r* = {TRUE_RANK}.",
        kind="identity",
        measure=lambda draws: _first_shift(draws, EARLY, TODAY),
        mutant_statement="the two names exchanged",
        mutant=lambda draws: _first_shift(draws, TODAY, EARLY),
        trials=100,
        smoke_trials=10,
        explanation="Kept apart here as lora-one-early, and lora-one or lora-one-released.",
        uses=("lora-one/algorithm-1",),
    ),
)
