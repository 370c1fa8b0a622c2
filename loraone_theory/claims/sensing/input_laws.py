"""2.3 to 2.5: other laws of the inputs, fewer samples than inputs, spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, ratios, same_law
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, RANK = 10, 7, 2
SPIKES = (5.0, 3.0)
FREE = 2 * D  # samples of the laws under spikes
PLAIN = "Σ diagonal with " + " and ".join(f"{s:g}" for s in SPIKES) + " first and else one"
# Fewer samples than inputs: of the end itself, and of its mean risk.
WIDE, OUT, ROWS, END = 30, 6, 12, 600
NARROW, HIGH, LEFT, WITHIN = 15, 3, 5, 0.03
SMALL, FEW, ALLOWANCE = 8, 48, 0.05


class Law(NamedTuple):
    """Inputs, and N·E‖(Σ̂ − I)v‖² of them.

    Args:
        text: of the formula.
        value: what it promises.
        mutant: what another promises.
        mutant_text: of the other.
        d: width.
        options: of the sampler.
        trials: draws at full size.
        smoke_trials: and of a smoke run.
    """

    text: str
    value: float
    mutant: float
    mutant_text: str = "d for every law"
    d: int = SMALL
    options: Mapping[str, Any] = {}
    trials: int = 6000
    smoke_trials: int = 3000


# Their squares need moments of order eight, ν > 8; at small d the fourth one of an entry counts.
STUDENT, THIN = 12.0, 3
LAWS = {
    "gaussian": Law("d + 1", SMALL + 1, SMALL),
    "rademacher": Law("d − 1", SMALL - 1, SMALL),
    "sphere": Law("d − 1", SMALL - 1, SMALL),
    "student": Law(
        "d + 1 + 6/(ν − 4)", THIN + 1 + 6 / (STUDENT - 4), THIN + 1, "d + 1, as of Gaussian inputs",
        THIN, {"freedom": STUDENT}, 24_000, 5000,
    ),
    "elliptic": Law(
        "(ν − 2)/(ν − 4)·(d + 2) − 1", (STUDENT - 2) / (STUDENT - 4) * (SMALL + 2) - 1, SMALL + 1,
        "d + 1, as of Gaussian inputs", SMALL, {"freedom": STUDENT}, 12_000, 2500,
    ),
}  # fmt: skip


def _law(draws: Draws, law: str, *, wrong: bool) -> Evidence:
    """‖(Σ̂ − I)Δ‖² against its mean."""
    of = LAWS[law]
    problem = sample_linear(
        d=of.d, k=1, true_rank=1, samples=FEW, inputs=law, seeds=draws.seeds(), **of.options
    )
    miss = problem.one_step_gradient().dense() - problem.shift.dense()
    promised = of.mutant if wrong else of.value
    return ratios(FEW * (miss**2).sum((-2, -1)), promised, ALLOWANCE)


def _fewer(draws: Draws, *, dropped: int) -> Evidence:
    """AB at the end against P_XΔ, the mutant with the rows of X but the last."""
    problem = sample_linear(
        d=WIDE, k=OUT, true_rank=RANK, samples=ROWS, keep_inputs=True, seeds=draws.seeds()
    )
    run = simulate(
        problem, "lora-one-preconditioned", rank=RANK, learning_rate=0.1, steps=END, record=()
    )
    assert problem.inputs is not None
    rows = torch.linalg.qr(problem.inputs[:, : ROWS - dropped].mT).Q
    expected = rows @ (rows.mT @ problem.shift.dense())
    gap = torch.linalg.matrix_norm(run.final.dense() - expected)
    # Nonzero eigenvalues of Σ̂ lie above (√(30/12) − 1)²/2 = .17 in all but rare draws, so that
    # 600 steps at η = .1 leave (1 − .017)^600 = 4e-5 of them at the worst, and 1e-7 in most.
    return Evidence((gap / 2**0.5).numpy(), 0.0, tolerance=1e-3)


def _fewer_risk(draws: Draws, *, wrong: bool) -> Evidence:
    """Its risk, ½‖(I − P_X)Δ‖², in the mean."""
    problem = sample_linear(
        d=NARROW, k=HIGH, true_rank=1, samples=LEFT, keep_inputs=True, seeds=draws.seeds()
    )
    assert problem.inputs is not None
    run = simulate(
        problem, "lora-one-preconditioned", rank=1, learning_rate=0.1, steps=150, record=("risk",),
        every=150,
    )  # fmt: skip
    share = LEFT - 1 if wrong else LEFT
    return ratios(run["risk"][-1], (1 - share / NARROW) / 2, WITHIN)


def _spiked(draws: Draws, *, factor: float) -> Evidence:
    """The laws of four statistics of the spiked model with X and without."""
    seeds, others = draws.seeds(), draws.seeds(block=1)
    Sigma = np.ones(D)
    Sigma[: len(SPIKES)] = SPIKES
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": RANK, "samples": FREE}
    first = sample_linear(covariance=Sigma, seeds=seeds, **sizes)
    spikes = [factor * SPIKES[0], *SPIKES[1:]]
    second = sample_linear_matrix_free(spikes=spikes, seeds=others, **sizes)
    return same_law(_statistics(first), _statistics(second))


def _statistics(problem: LinearProblem) -> dict[str, Tensor]:
    run = simulate(
        problem, "lora-one", rank=RANK, learning_rate=0.01, steps=20, record=("risk",), every=20
    )
    ends = problem.covariance_spectrum()
    return {
        "risk after 20 steps": run["risk"][-1],
        "sinΘ(U, U(G))": predict.plateau(problem),
        "smallest eigenvalue of Σ̂": ends[:, 0],
        "largest eigenvalue of Σ̂": ends[:, 1],
    }


def _law_claim(law: str) -> Claim:
    of = LAWS[law]
    freedom = "".join(f", ν = {nu:g}" for nu in of.options.values())
    return Claim(
        id=f"sensing/input-laws/{law}",
        title=f"One-step error of {law} inputs",
        reference="derivations, sensing 2.3",
        statement=(
            "N·E‖(Σ̂ − I)v‖² = E[‖x‖²(v·x)²] − 1, for independent entries d − 2 + E z⁴; here "
            f"{of.text}."
        ),
        hypotheses=(f"{law} inputs with E xxᵀ = I", "‖v‖ = 1"),
        how=f"d = {of.d}, N = {FEW}{freedom}, Haar v; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _law(draws, law, wrong=False),
        mutant_statement=of.mutant_text,
        mutant=lambda draws: _law(draws, law, wrong=True),
        trials=of.trials,
        smoke_trials=of.smoke_trials,
        derivation="sensing 2.3",
        figure="fig_input_laws.png",
    )


CLAIMS = (
    *(_law_claim(law) for law in LAWS),
    Claim(
        id="sensing/fewer-samples",
        title="Fewer samples than inputs",
        reference="derivations, sensing 2.4",
        statement="N < d: a run from Spectral-init that interpolates ends at AB = P_XΔ.",
        hypotheses=("linear model", "N < d", "r >= r*", "Spectral-init", "it interpolates"),
        how=(
            f"‖AB − P_XΔ‖/‖Δ‖ after {END} preconditioned steps; d = {WIDE}, N = {ROWS}, "
            f"r = r* = {RANK}."
        ),
        kind="identity",
        measure=lambda draws: _fewer(draws, dropped=0),
        mutant_statement="the projection on all rows of X but one",
        mutant=lambda draws: _fewer(draws, dropped=1),
        trials=50,
        smoke_trials=6,
        derivation="sensing 2.4",
    ),
    Claim(
        id="sensing/fewer-samples/risk",
        title="What fewer samples than inputs leave",
        reference="derivations, sensing 2.4",
        statement="Its risk is ½(1 − N/d)‖Δ‖² in the mean.",
        hypotheses=("isotropic inputs", "N < d", "r >= r*", "Spectral-init", "it interpolates"),
        how=f"The run's risk at d = {NARROW}, N = {LEFT}, Δ of rank one; within {WITHIN:.0%}.",
        kind="value",
        measure=lambda draws: _fewer_risk(draws, wrong=False),
        mutant_statement="½(1 − (N − 1)/d)‖Δ‖²",
        mutant=lambda draws: _fewer_risk(draws, wrong=True),
        trials=4000,
        smoke_trials=1200,
        derivation="sensing 2.4",
        uses=("sensing/fewer-samples",),
    ),
    Claim(
        id="sensing/spiked-law",
        title="Exact-law sampling of a spiked covariance",
        reference="derivations, sensing 2.5",
        statement=(
            "Block bidiagonalisation draws Σ̂ and U of Σ = diag(spikes, 1, …, 1) without X, in "
            "O(dq²)."
        ),
        hypotheses=("Gaussian inputs", "a rotation-equivariant rule"),
        how=f"Four statistics with X and without; {PLAIN}, d = {D}, N = {FREE}; {LAW}.",
        kind="bound",
        measure=lambda draws: _spiked(draws, factor=1.0),
        mutant_statement="a first spike 20 % larger",
        mutant=lambda draws: _spiked(draws, factor=1.2),
        trials=3000,
        smoke_trials=500,
        explanation=NO_PROOF,
        derivation="sensing 2.5",
        uses=("lora-one/linear/rotation",),
    ),
)
