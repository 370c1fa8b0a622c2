"""8: from LoRA-init a run beyond the true rank ends at the tangent map's slowest mode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import best
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, RANK, TRUE_RANK, COUNT = 8, 2, 1, 140
START, RATE, STEPS, EVERY = 0.15, 0.2, 2500, 50
# Relative errors of E in which slopes are measured, the lower far above rounding.
ARRIVED, LOWEST = 1e-8, 1e-11
# Other modes of R times the squared size of the slowest one where the window opens bend its slope
# by ln √(1 + R) of the ln(e₁/e₂) that the window spans: for R = 10 and two decades, 0.26.
ALLOWANCE = 0.3


def _slowest(problem: SensingProblem, A: Tensor, B: Tensor) -> Tensor:
    """The least nonzero squared singular value of (X, Y) ↦ 𝒜(XB + AY)/√m, rank B = r*."""
    columns = []
    for i in range(2 * D * RANK):
        move = torch.zeros(2 * D * RANK, dtype=torch.float64)
        move[i] = 1.0
        X, Y = move.split(D * RANK)
        change = Factors(X.reshape(D, RANK), Y.reshape(RANK, D))
        columns.append(problem.operator.tangent(Factors(A, B), change))
    J = torch.stack(columns, -1) / COUNT**0.5
    dof = D * TRUE_RANK + RANK * D - RANK * TRUE_RANK
    return torch.linalg.svdvals(J)[..., dof - 1] ** 2


def _tail(draws: Draws, *, balance: bool) -> Evidence:
    """(1 − rate)/η of the tail, against μ_min, or against λ_min(AᵀA − BBᵀ)."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=D, true_rank=TRUE_RANK, measurements=COUNT, seeds=draws.seeds()
    )
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=STEPS, init_std=START,
        record=("error",), every=EVERY,
    )  # fmt: skip
    error = run["error"].numpy()
    last = (error > LOWEST).sum(0) - 1
    first = 3 * last // 4
    ends = [np.take_along_axis(error, at[None], 0)[0] for at in (first, last)]
    tail = (1 - (ends[1] / ends[0]) ** (1 / np.maximum((last - first) * EVERY, 1))) / RATE
    A, B = run.final
    if balance:
        promised = torch.linalg.eigvalsh(A.mT @ A - B @ B.mT)[:, 0]
    else:
        promised = _slowest(problem, A, best(B, TRUE_RANK))
    law = promised.numpy()
    return Evidence(
        tail,
        law,
        inside=ends[1] < ARRIVED,
        tolerance=ALLOWANCE * law,
        numbers={"mean tail / promised": float(np.mean(tail / law))},
    )


CLAIMS = (
    Claim(
        id="sensing/over-rank",
        title="The tail beyond the true rank",
        reference="derivations, sensing 8",
        statement=(
            "From LoRA-init with r > r* the error ends at 1 − ημ_min per step, μ_min the least of "
            "the dr* + rk − rr* nonzero squared singular values of (X, Y) ↦ 𝒜(XB + AY)/√m where "
            "the run ends, with rank A = r and rank B = r*."
        ),
        hypotheses=("r > r*", "B₀ = 0", "no noise", f"the run has come below {ARRIVED:g}"),
        how=(
            f"The last quarter of a run down to {LOWEST:g}, which other modes bend by up to "
            f"{ALLOWANCE:.0%}; dense, d = k = {D}, r = {RANK}, r* = {TRUE_RANK}, m = {COUNT}, "
            f"α = {START}, η = {RATE}."
        ),
        kind="identity",
        measure=lambda draws: _tail(draws, balance=False),
        mutant_statement="λ_min(AᵀA − BBᵀ) in place of μ_min, as for 𝒜*𝒜/m = I",
        mutant=lambda draws: _tail(draws, balance=True),
        trials=24,
        smoke_trials=6,
        derivation="sensing 8",
        uses=("lora-one/theorem-3.1", "sensing/local-rates/dense"),
    ),
)
