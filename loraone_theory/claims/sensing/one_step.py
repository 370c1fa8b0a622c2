"""1.6 and 3.1: how far one step from zero is off, to first order, for every ensemble."""

from __future__ import annotations

from typing import Any

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import ratios, tangent_part
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, TRUE_RANK, NOISE = 4, 3, 1, 0.2
SAMPLES = 24
DOF = TRUE_RANK * (D + K - TRUE_RANK)
ALLOWANCE = 0.07
# ensemble: m, further arguments, statement, what the mutant says, its numerator over ‖Δ‖²/m.
CASES: dict[str, tuple[int, dict[str, Any], str, str, float | None]] = {
    "dense": (60, {}, "(dof + 1)‖Δ‖²/m", "dof in place of dof + 1", DOF),
    "rank-one": (
        150, {}, "[(r + 2)(d + k + 2 − r) − 1]‖Δ‖²/m", "d + k − r in place of d + k + 2 − r",
        3 * (D + K - 1) - 1,
    ),
    "multi-response": (24 * K, {}, "(d + 1)k‖Δ‖²/m", "d in place of d + 1", D * K),
    "completion": (
        3, {"replace": False},
        "[dkΣΔ_ij²t_ij − ‖Δ‖²]/m·(dk − m)/(dk − 1), t_ij = ‖U_i‖² + ‖V_j‖² − ‖U_i‖²‖V_j‖²",
        "without the factor (dk − m)/(dk − 1) of distinct entries", None,
    ),
}  # fmt: skip


def _sensing(draws: Draws, ensemble: str, *, wrong: bool) -> Evidence:
    m, options, _, _, numerator = CASES[ensemble]
    problem = sample_sensing(
        ensemble=ensemble,
        d=D,
        k=K,
        true_rank=TRUE_RANK,
        measurements=m,
        seeds=draws.seeds(),
        **options,
    )
    assert problem.shift is not None
    G = problem.operator.adjoint(problem.labels) / m
    part = tangent_part(problem.shift, G - problem.shift.dense())
    law = predict.one_step_error(problem)
    if wrong and numerator is not None:
        law = law.new_full(law.shape, numerator / m)  # λ* = 1
    elif wrong:
        law = law * (D * K - 1) / (D * K - m)
    return ratios((part**2).sum((-2, -1)), law, ALLOWANCE)


def _linear(draws: Draws, *, wrong: bool) -> Evidence:
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=NOISE, seeds=draws.seeds()
    )
    part = tangent_part(problem.shift, problem.one_step_gradient().dense() - problem.shift.dense())
    law = predict.one_step_error(problem, noise_std=NOISE)
    if wrong:
        law = law - 1 / SAMPLES
    return ratios((part**2).sum((-2, -1)), law, ALLOWANCE)


def _claim(ensemble: str) -> Claim:
    m, _, statement, broken, _ = CASES[ensemble]
    return Claim(
        id=f"sensing/one-step/{ensemble}",
        title=f"One-step error, {ensemble}",
        reference="derivations, sensing 3.1",
        statement=f"E‖P_T(G − Δ)‖² = {statement}, which Spectral-init has to first order.",
        hypotheses=(f"{ensemble} measurements", "r = r*", "no noise"),
        how=f"d = {D}, k = {K}, r = {TRUE_RANK}, m = {m}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _sensing(draws, ensemble, wrong=False),
        mutant_statement=broken,
        mutant=lambda draws: _sensing(draws, ensemble, wrong=True),
        trials=8000,
        smoke_trials=3000,
        derivation="sensing 3.1",
        uses=("sensing/input-laws/gaussian",) if ensemble == "multi-response" else (),
    )


CLAIMS = (
    Claim(
        id="sensing/one-step",
        title="One-step error under label noise",
        reference="derivations, sensing 1.6",
        statement="E‖P_T(G − Δ)‖² = [(d + 1)‖Δ‖² + σ²r(d + k − r)]/N.",
        hypotheses=("linear model", "Gaussian inputs", "r = r*"),
        how=(
            f"d = {D}, k = {K}, r = {TRUE_RANK}, N = {SAMPLES}, σ = {NOISE}; "
            f"within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _linear(draws, wrong=False),
        mutant_statement="d in place of d + 1",
        mutant=lambda draws: _linear(draws, wrong=True),
        trials=8000,
        smoke_trials=3000,
        derivation="sensing 1.6",
        uses=("sensing/equivalence", "sensing/input-laws/gaussian"),
    ),
    *(_claim(ensemble) for ensemble in CASES),
)
