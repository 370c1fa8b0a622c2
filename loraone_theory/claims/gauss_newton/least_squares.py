"""With measurements a full Gauss–Newton step in turn is alternating least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, condition, gaussian, tangent_matrix
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import lora
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, RANK, KAPPA, ETA, NEARLY = 8, 6, 2, 3.0, 1.0, 0.999
COUNTS = {"dense": 80, "rank-one": 120}


def _minimiser(problem: SensingProblem, at: Factors, of: str) -> tuple[Tensor, Tensor]:
    """The factor that fits the labels best beside the other one, and its design's condition."""
    whole = tangent_matrix(problem.operator, at)
    shape, design = (
        ((D, RANK), whole[..., : D * RANK]) if of == "A" else ((RANK, K), whole[..., D * RANK :])
    )
    Q, R = torch.linalg.qr(design)
    found = torch.linalg.solve_triangular(R, Q.mT @ problem.labels[..., None], upper=True)
    return found[..., 0].unflatten(-1, shape), condition(R)


def _in_turn(draws: Draws, *, eta: float) -> Evidence:
    """‖A₁B₁ − A′B′‖/‖A′B′‖ with A′ the minimiser beside B₀ and B′ that beside A′."""
    found, allowed = [], []
    for block, (ensemble, count) in enumerate(COUNTS.items()):
        seeds = draws.seeds(block=block)
        problem = sample_sensing(
            ensemble=ensemble, d=D, k=K, true_rank=RANK, measurements=count,
            condition_number=KAPPA, seeds=seeds,
        )  # fmt: skip
        start = Factors(gaussian(D, RANK, seeds, "A0"), gaussian(RANK, K, seeds, "B0"))
        run = simulate(
            problem, lora().trained_by("gauss-newton"), rank=RANK, learning_rate=eta, steps=1,
            initial=start, record=(),
        )  # fmt: skip
        A, of_A = _minimiser(problem, start, "A")
        best = Factors(A, start.B)
        B, of_B = _minimiser(problem, best, "B")
        wanted = best._replace(B=B).dense()
        gap = torch.linalg.matrix_norm(run.final.dense() - wanted)
        found.append(gap / torch.linalg.matrix_norm(wanted))
        # Normal equations square the condition; what A₁ is off by passes through the second.
        rounding = of_A**2 * (1 + of_B**2) * condition(A) * condition(start.B)
        allowed.append(10 * D * K * EPS * rounding)
    return Evidence(torch.cat(found).numpy(), 0.0, tolerance=torch.cat(allowed).numpy())


CLAIMS = (
    Claim(
        id="gauss-newton/least-squares",
        title="A full step is alternating least squares",
        reference="Jain, Netrapalli, Sanghavi 2013, alternating minimisation; derivations, "
        "neighbours 9",
        statement=(
            "At η = 1, undamped, A₁ minimises the loss beside B₀ and then B₁ minimises it beside "
            "A₁, whatever is measured."
        ),
        hypotheses=("both least-squares problems have full rank", "no damping"),
        how=(
            "Relative distance of A₁B₁ from the minimisers by orthogonal factorisation, from "
            f"Gaussian factors; {listed(COUNTS.values())} measurements ({', '.join(COUNTS)}), "
            f"d = {D}, k = {K}, r = r* = {RANK}, κ = {KAPPA:g}."
        ),
        kind="identity",
        measure=lambda draws: _in_turn(draws, eta=ETA),
        mutant_statement=f"η = {NEARLY:g}",
        mutant=lambda draws: _in_turn(draws, eta=NEARLY),
        trials=60,
        smoke_trials=3,
        derivation="neighbours 9",
    ),
)
