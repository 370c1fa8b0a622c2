"""3.2: what runs on one instance of an ensemble do not see: the gauge, and rotated outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import gaussian, haar
from loraone_theory.claims.sensing.base import EPS, balanced
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing.operators import MultiResponse
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, RANK, STEPS, RATE, AWAY = 6, 4, 2, 12, 0.1, 0.1
COUNTS = {"dense": 90, "rank-one": 120, "single-response": 120, "multi-response": 30 * K,
          "completion": 90}  # fmt: skip


def _drawn(draws: Draws, ensemble: str) -> tuple[SensingProblem, Factors]:
    """A problem, and a start near its balanced solution."""
    problem = sample_sensing(
        ensemble=ensemble, d=D, k=K, true_rank=RANK, measurements=COUNTS[ensemble],
        seeds=draws.seeds(),
    )  # fmt: skip
    assert problem.shift is not None
    at, seeds = balanced(problem.shift), draws.seeds()
    move = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    return problem, Factors(at.A + AWAY * move.A, at.B + AWAY * move.B)


def _end(problem: SensingProblem, method: str, start: Factors) -> Tensor:
    options: dict[str, Any] = {"rank": RANK, "learning_rate": RATE, "steps": STEPS, "record": ()}
    return simulate(problem, method, initial=start, **options).final.dense()


def _gauge(draws: Draws, *, method: str) -> Evidence:
    """Ends of two runs from (A, B) and (AQ, Q⁻¹B)."""
    gaps = []
    Q = haar(RANK, RANK, draws.seeds(), "Q") * torch.tensor([1.0, 1.5], dtype=torch.float64)
    for ensemble in COUNTS:
        problem, start = _drawn(draws, ensemble)
        moved = Factors(start.A @ Q, torch.linalg.solve(Q, start.B))
        here, there = (_end(problem, method, at) for at in (start, moved))
        gaps.append(torch.linalg.matrix_norm(here - there))
    # Sums over dk and m in every step, and Gram inverses of condition number below 1e2.
    tolerance = 1e3 * STEPS * max(COUNTS.values()) * EPS
    return Evidence(torch.cat(gaps).numpy(), 0.0, tolerance=tolerance)


def _outputs(draws: Draws, *, ensemble: str) -> Evidence:
    """The end of a run with outputs turned by O against the end of the first, turned."""
    problem, start = _drawn(draws, ensemble)
    O = haar(K, K, draws.seeds(), "O")
    here = _end(problem, "lora", start)
    assert problem.shift is not None
    turned = Factors(problem.shift.A, problem.shift.B @ O)
    labels = problem.operator.forward(turned)
    if isinstance(problem.operator, MultiResponse):
        labels = (problem.labels.unflatten(-1, (-1, K)) @ O).flatten(-2)
    other = SensingProblem.from_data(problem.operator, labels, shift=turned)
    there = _end(other, "lora", Factors(start.A, start.B @ O))
    gap = torch.linalg.matrix_norm(there - here @ O)
    # Sums over d, k and N in every step.
    return Evidence(gap.numpy(), 0.0, tolerance=1e2 * STEPS * max(COUNTS.values()) * EPS)


_SIZES = f"d = {D}, k = {K}, r = {RANK}, {STEPS} steps from {AWAY} off Δ"

CLAIMS = (
    Claim(
        id="sensing/invariance/gauge",
        title="The gauge, for any measurements",
        reference="derivations, sensing 3.2",
        statement="Preconditioned runs from (A, B) and (AQ, Q⁻¹B) have the same AB for ever.",
        hypotheses=("any measurements", "Q invertible"),
        how=f"Five ensembles; Q of condition number at most a half above one; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _gauge(draws, method="p-lora"),
        mutant_statement="of gradient descent",
        mutant=lambda draws: _gauge(draws, method="lora"),
        trials=40,
        smoke_trials=5,
        derivation="sensing 3.2",
        uses=("lora-one/linear/gauge",),
    ),
    Claim(
        id="sensing/invariance/outputs",
        title="Multi-response measurements turn with the outputs",
        reference="derivations, sensing 3.2",
        statement="On one instance the run on ΔO from (A₀, B₀O) ends at (A, BO) for every O.",
        hypotheses=("multi-response measurements", "O orthogonal", "gradient descent"),
        how=f"The products at the end; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _outputs(draws, ensemble="multi-response"),
        mutant_statement="of single-response measurements",
        mutant=lambda draws: _outputs(draws, ensemble="single-response"),
        trials=40,
        smoke_trials=5,
        derivation="sensing 3.2",
        uses=("lora-one/linear/rotation",),
    ),
)
