"""3.1: given the measurements, the noise floor is a trace over the tangent space."""

from __future__ import annotations

import torch

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import tangent_matrix
from loraone_theory.claims.sensing.base import EPS, balanced, ratios
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing.operators import RankOne
from loraone_theory.problems.sensing.sampling import sample_sensing

D, RANK = 6, 1
DOF = RANK * (2 * D - RANK)
COUNT, SIGMA, RATE, STEPS = 150, 1e-3, 0.3, 200
ALLOWANCE = 0.05
# Of what is predicted for every ensemble.
K, WIDER, KAPPA = 5, 2, 3.0
FREE = WIDER * (D + K - WIDER)
COUNTS = {
    "dense": 40,
    "rank-one": 60,
    "single-response": 80,
    "multi-response": 12 * K,
    "completion": 90,
}


def _given(draws: Draws, *, inverse: bool) -> Evidence:
    """Risks where runs from Δ end, over the trace written out; the mutant has dof for it."""
    problem = sample_sensing(
        ensemble="rank-one", d=D, k=D, true_rank=RANK, measurements=COUNT, noise_std=SIGMA,
        seeds=draws.seeds(),
    )  # fmt: skip
    operator, shift = problem.operator, problem.shift
    assert isinstance(operator, RankOne)
    assert shift is not None
    run = simulate(
        problem, "lora-one-preconditioned", rank=RANK, learning_rate=RATE, steps=STEPS,
        initial=balanced(shift), record=("risk",), every=STEPS,
    )  # fmt: skip
    rows = (operator.X[..., :, None] * operator.Z[..., None, :]).flatten(-2)
    U, _, V = linalg.truncated_svd(shift, RANK)
    eye = torch.eye(D, dtype=torch.float64)
    off = [eye - M @ M.mT for M in (U, V)]
    # The projector off T, as a matrix on R^{d·d}; T is where it is zero.
    other = torch.einsum("nij,nab->niajb", *off).reshape(-1, D * D, D * D)
    basis = torch.linalg.eigh(other).eigenvectors[..., :DOF]
    values = torch.linalg.svdvals(rows @ basis) ** 2 / COUNT
    trace = (1 / values).sum(-1) if inverse else torch.full_like(values[:, 0], DOF)
    law = SIGMA**2 / (2 * COUNT) * trace
    gap = (predict.noise_floor(problem, noise_std=SIGMA) / law - 1).abs().max()
    found = ratios(run["risk"][-1], law, ALLOWANCE)
    return Evidence(
        found.lhs, found.rhs, tolerance=found.tolerance,
        numbers={**found.numbers, "largest gap of predict.noise_floor": float(gap)},
    )  # fmt: skip


def _responses(draws: Draws, *, inverse: bool) -> Evidence:
    """½σ²‖R‖²_F over the predicted floor, R from noise to the least-squares fit within T."""
    found, allowed = [], []
    for block, (ensemble, count) in enumerate(COUNTS.items()):
        problem = sample_sensing(
            ensemble=ensemble, d=D, k=K, true_rank=WIDER, measurements=count,
            condition_number=KAPPA, seeds=draws.seeds(block=block),
        )  # fmt: skip
        operator, shift = problem.operator, problem.shift
        assert shift is not None
        U, _, V = linalg.truncated_svd(shift, WIDER)
        at = Factors(U, V.mT)
        design = tangent_matrix(operator, at)
        # The gauge, which moves nothing, is left out: dof values are not zero.
        P, S, Qh = torch.linalg.svd(design, full_matrices=False)
        P, S, Q = P[..., :FREE], S[..., :FREE], Qh.mT[..., :FREE]
        fits = (Q / S[..., None, :]) @ P.mT
        X = fits[..., : D * WIDER, :].mT.unflatten(-1, (D, WIDER))
        Y = fits[..., D * WIDER :, :].mT.unflatten(-1, (WIDER, K))
        moves = X @ at.B[:, None] + at.A[:, None] @ Y
        power = moves.square().sum((-3, -2, -1))
        if not inverse:
            power = torch.full_like(power, FREE / count)
        sigma = SIGMA * operator.label_scale
        found.append(0.5 * sigma**2 * power / predict.noise_floor(problem, noise_std=SIGMA))
        allowed.append(10 * count * EPS * (S[..., 0] / S[..., -1]) ** 2)
    return Evidence(torch.cat(found).numpy(), 1.0, tolerance=torch.cat(allowed).numpy())


CLAIMS = (
    Claim(
        id="sensing/measured-floor",
        title="The noise floor given the measurements",
        reference="derivations, sensing 3.1",
        statement=(
            "The mean risk at the end is ½σ²tr((P_TKP_T)⁻¹)/m, K = 𝒜*𝒜/m, to first order in σ."
        ),
        hypotheses=("any measurements that see all of T", "r = r*", "σ small"),
        how=(
            f"Preconditioned GD from Δ to its end, rank-one measurements; d = k = {D}, r = {RANK}, "
            f"m = {COUNT}, σ = {SIGMA:g}; within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _given(draws, inverse=True),
        mutant_statement="dof in place of tr((P_TKP_T)⁻¹)",
        mutant=lambda draws: _given(draws, inverse=False),
        trials=3000,
        smoke_trials=700,
        derivation="sensing 3.1",
        uses=("sensing/dense-floor",),
    ),
    Claim(
        id="sensing/measured-floor/responses",
        title="The trace is the mean of what the noise moves",
        reference="derivations, sensing 3.1",
        statement=(
            "½σ²tr((P_TKP_T)⁻¹)/m is the mean of ½‖Rz‖² over the noise z, R the least-squares fit "
            "of labels within T, whatever is measured."
        ),
        hypotheses=("measurements that see all of T", "r = r*"),
        how=(
            "½σ²‖R‖_F² over `predict.noise_floor`, R by singular values of (X, Y) ↦ 𝒜(XVᵀ + UY); "
            f"d = {D}, k = {K}, r = {WIDER}, κ = {KAPPA:g}, "
            f"m = {', '.join(f'{m} ({name})' for name, m in COUNTS.items())}."
        ),
        kind="identity",
        measure=lambda draws: _responses(draws, inverse=True),
        mutant_statement="dof in place of tr((P_TKP_T)⁻¹)",
        mutant=lambda draws: _responses(draws, inverse=False),
        trials=40,
        smoke_trials=3,
        derivation="sensing 3.1",
    ),
)
