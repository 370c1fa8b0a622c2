"""2: inputs with a covariance: the risk on fresh rows, and where over-ranked runs settle."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import LIKE, gaussian, haar
from loraone_theory.claims.sensing.base import ratios
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK, SPIKES = 8, 6, 2, 4, (1.8, 1.4, 0.6)
START, RATE, STEPS = 1e-5, 0.2, 900
FRESH, ALLOWANCE = 400, 0.03


def _law() -> Tensor:
    """Σ's diagonal."""
    values = LIKE.new_ones(D)
    values[: len(SPIKES)] = LIKE.new_tensor(SPIKES)
    return values


def _settles(draws: Draws, *, power: float) -> Evidence:
    """The alignment at the end against the sine of the angle between U and Σ^`power`U."""
    law, seeds = _law(), draws.seeds()
    U, V = (haar(n, TRUE_RANK, seeds, name) for n, name in ((D, "U"), (K, "V")))
    problem = LinearProblem.population(shift=Factors(U, V.mT), covariance=law)
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=STEPS, init_std=START, seeds=seeds,
        record=("left_alignment",), every=STEPS,
    )  # fmt: skip
    turned, _ = linalg.left_frame(law[:, None] ** power * U, TRUE_RANK)
    # Second order in the surplus columns, of size α√d against factors of size one; the slowest
    # true mode is at least .6 of λ* = 1, so that (1 − .1)^900 is left of its error.
    return Evidence(
        run["left_alignment"][-1].numpy(), linalg.largest_sine(U, turned).numpy(),
        tolerance=1e2 * D * START**2,
    )  # fmt: skip


def _risk(draws: Draws, *, power: float) -> Evidence:
    """The loss on fresh rows of a Gaussian AB, over ½tr(EᵀΣ^`power`E)."""
    seeds = draws.seeds()
    sizes: dict[str, Any] = {"d": D, "k": K, "true_rank": TRUE_RANK, "samples": FRESH}
    rows = sample_linear(covariance=_law(), seeds=seeds, **sizes)
    at = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    squares = rows.residual(at).square().sum(-1)
    return ratios(rows.loss(at), 0.5 * (_law() ** power * squares).sum(-1), ALLOWANCE)


_SIGMA = f"Σ = diag({listed(SPIKES)}, then ones), d = {D}, k = {K}, r* = {TRUE_RANK}"

CLAIMS = (
    Claim(
        id="sensing/covariance",
        title="The risk under a covariance",
        reference="derivations, sensing 2",
        statement="A fresh row costs ½tr(EᵀΣE) in the mean.",
        hypotheses=("linear model", "x = Σ^{1/2}z, E zzᵀ = I"),
        how=f"Losses on {FRESH} fresh rows at Gaussian factors; {_SIGMA}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _risk(draws, power=1.0),
        mutant_statement="½tr(EᵀΣ^{1/2}E)",
        mutant=lambda draws: _risk(draws, power=0.5),
        trials=1500,
        smoke_trials=800,
        derivation="sensing 2",
    ),
    Claim(
        id="sensing/covariance/plateau",
        title="The plateau under a covariance",
        reference="derivations, sensing 2",
        statement=(
            "With N = ∞ the alignment of a run of rank r > r* from a small LoRA-init settles at "
            "the angle between U and ΣU."
        ),
        hypotheses=("linear model", "N = ∞", "r > r*", "α small"),
        how=f"Its sine after {STEPS} steps, α = {START:g}, r = {RANK}, η = {RATE}; {_SIGMA}.",
        kind="identity",
        measure=lambda draws: _settles(draws, power=1.0),
        mutant_statement="the angle between U and Σ^{1/2}U",
        mutant=lambda draws: _settles(draws, power=0.5),
        trials=50,
        smoke_trials=6,
        derivation="sensing 2",
        uses=("lora-one/linear/plateau",),
    ),
)
