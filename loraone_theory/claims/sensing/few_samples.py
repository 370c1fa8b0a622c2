"""2.4: fewer samples than inputs: the law without X, and what LoRA-init keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS, LAW, NO_PROOF, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, RANK, ROWS, STEPS, RATE = 14, 6, 2, 8, 20, 0.02
SIZES: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK}
FOLLOWED = 50


def _statistics(problem: LinearProblem) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=RANK, learning_rate=RATE, steps=STEPS, record=("risk", "loss"),
        every=STEPS,
    )  # fmt: skip
    return {
        "loss of Spectral-init": run["loss"][0],
        f"risk after {STEPS} steps": run["risk"][-1],
        "largest eigenvalue of Σ̂": problem.covariance_spectrum()[:, 1],
    }


def _law(draws: Draws, *, rows: int) -> Evidence:
    """Statistics with X of `ROWS` rows, and without of `rows`."""
    with_X = sample_linear(samples=ROWS, seeds=draws.seeds(), **SIZES)
    free = sample_linear_matrix_free(samples=rows, seeds=draws.seeds(block=1), **SIZES)
    return same_law(_statistics(with_X), _statistics(free))


def _kept(draws: Draws, *, dropped: int) -> Evidence:
    """(I − P_X)A_t against (I − P_X)A₀, the mutant's P_X of all rows but one."""
    problem = sample_linear(samples=ROWS, keep_inputs=True, seeds=draws.seeds(), **SIZES)
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=FOLLOWED, init_std=0.3, record=(),
        seeds=draws.seeds(), reduce="never",
    )  # fmt: skip
    assert problem.inputs is not None
    rows = torch.linalg.qr(problem.inputs[:, : ROWS - dropped].mT).Q
    change = run.final.A - run.initial.A
    off = change - rows @ (rows.mT @ change)
    norm = torch.linalg.matrix_norm
    # Sums over d in every step, and a basis of rows of condition number below 1e2.
    return Evidence(
        (norm(off) / norm(run.initial.A)).numpy(), 0.0, tolerance=1e2 * FOLLOWED * D * EPS
    )


CLAIMS = (
    Claim(
        id="sensing/fewer-samples/law",
        title="Exact-law sampling of fewer samples than inputs",
        reference="derivations, sensing 2.4",
        statement=(
            "X = P[L 0]Qᵀ√N with a bidiagonal L of independent chi entries, χ_d … χ_{d−N+1} on the "
            "diagonal and χ_{N−1} … χ_1 beside it, draws Σ̂ and a Haar frame without X."
        ),
        hypotheses=("Gaussian inputs", "N < d", "a rotation-equivariant rule"),
        how=f"Three statistics with X and without; d = {D}, k = {K}, N = {ROWS}; {LAW}.",
        kind="bound",
        measure=lambda draws: _law(draws, rows=ROWS),
        mutant_statement="of N + 1 rows",
        mutant=lambda draws: _law(draws, rows=ROWS + 1),
        trials=3000,
        smoke_trials=1000,
        explanation=NO_PROOF,
        derivation="sensing 2.4",
        uses=("lora-one/linear/rotation",),
    ),
    Claim(
        id="sensing/fewer-samples/kept",
        title="What LoRA-init keeps off the rows of X",
        reference="derivations, sensing 2.4",
        statement="From LoRA-init (I − P_X)A_t = (I − P_X)A₀ for ever.",
        hypotheses=("linear model", "N < d"),
        how=f"The change of A off row(X) in {FOLLOWED} steps; d = {D}, k = {K}, N = {ROWS}.",
        kind="identity",
        measure=lambda draws: _kept(draws, dropped=0),
        mutant_statement="the projection on all rows of X but one",
        mutant=lambda draws: _kept(draws, dropped=1),
        trials=50,
        smoke_trials=6,
        derivation="sensing 2.4",
    ),
)
