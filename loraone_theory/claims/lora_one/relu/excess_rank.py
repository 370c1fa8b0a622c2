"""5.5: more rank than needed: singular Grams, fixed damping and adaptive damping."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, listed, setting_of
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics.loop import simulate
from loraone_theory.predict import relu as predict_relu
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.sampling import sample_relu_population

TRUE_RANK, ETA, SHIFT, D, K, KAPPA, RANKS = 2, 0.5, 0.1, 15, 12, 3.0, (4, 6)
# Fixed damping and when it is judged; the factor of adaptive damping, and between which steps.
DAMPING, LATE, FACTOR, EARLY, LAST = 1e-3, 500, 0.25, 40, 80
UNDAMPED_RANK, UNDAMPED_STEPS = 4, 400
METHOD = "lora-one-preconditioned"
LESS = 0.9


def _problem(draws: Draws, block: int = 0) -> ReLUPopulation:
    return sample_relu_population(
        d=D, k=K, true_rank=TRUE_RANK, relative_shift=SHIFT, condition_number=KAPPA,
        seeds=draws.seeds(block=block),
    )  # fmt: skip


def _fixed(draws: Draws, t: int, *, counted: bool = True) -> Evidence:
    """‖E_t‖_F over √(r − r*) λ/(ηt) at one t, for r − r* = 2 and 4."""
    damping = DAMPING
    ratios, numbers = [], {}
    for block, rank in enumerate(RANKS[:1] if draws.smoke else RANKS):
        run = simulate(
            _problem(draws, block), METHOD, rank=rank, learning_rate=ETA, steps=t, damping=damping,
            record=("error",), every=t,
        )  # fmt: skip
        predicted = predict_relu.sublinear(
            ETA, damping=damping, rank=rank if counted else 3, true_rank=TRUE_RANK, t=t
        )
        ratios.append((run["error"][-1] / predicted).numpy())
        numbers[f"mean ratio at r − r* = {rank - TRUE_RANK}"] = float(ratios[-1].mean())
        numbers[f"smallest ratio at r − r* = {rank - TRUE_RANK}"] = float(ratios[-1].min())
    return Evidence(
        lhs=np.concatenate(ratios),
        rhs=1.0,
        # λ/σ grows by η a step up to a sum of η/(1 + λ/σ): a correction of ln(ηt)/(ηt), 2 % at
        # t = 500, after a transient of ln(σ₀/λ)/η ≈ 10 steps, another 2 %.
        tolerance=0.05,
        numbers=numbers,
        setting=setting_of(ratios),
    )


def _adaptive(draws: Draws, *, share: float = 1.0) -> Evidence:
    """Contraction per step of the tail against `share` of that at r = r*, 1 − η/2."""
    method = methods.lora_one_preconditioned(adaptive=FACTOR)
    lhs, numbers = [], {}
    for block, rank in enumerate(RANKS):
        run = simulate(
            _problem(draws, block), method, rank=rank, learning_rate=ETA, steps=LAST,
            record=("error",),
        )  # fmt: skip
        error = run["error"].numpy()
        lhs.append((error[LAST] / error[EARLY]) ** (1 / (LAST - EARLY)))
        numbers[f"mean rate at r − r* = {rank - TRUE_RANK}"] = float(lhs[-1].mean())
        numbers[f"largest ‖E₈₀‖/‖E₀‖ at r = {rank}"] = float((error[LAST] / error[0]).max())
    return Evidence(
        lhs=np.concatenate(lhs),
        rhs=1 - share * (1 - predict_relu.population_rate(ETA)),
        # Superfluous directions contract by (1 − (η/2)/(1 + a√2))² = 0.66 or faster. A transient
        # of a fifth of the error at t = 40 moves the mean rate over 40 steps by this.
        tolerance=0.005,
        numbers=numbers,
        setting=setting_of(lhs),
    )


def _singular(draws: Draws, rank: int) -> Evidence:
    """Smallest over largest eigenvalue of AᵀA at the end of undamped runs."""
    problem = _problem(draws)
    run = simulate(
        problem,
        METHOD,
        rank=rank,
        learning_rate=ETA,
        steps=UNDAMPED_STEPS,
        record=("error",),
        every=UNDAMPED_STEPS,
    )
    values = torch.linalg.eigvalsh(run.final.A.mT @ run.final.A)
    smallest = (values[..., 0].abs() / values[..., -1]).numpy()
    truncated = np.array([s.outcome is Outcome.TRUNCATED for s in run.status])
    size = torch.linalg.matrix_norm(problem.shift.dense()).numpy()
    return Evidence(
        # Not reported as truncated counts as not singular.
        lhs=np.where(truncated, smallest, 1.0),
        rhs=rank * np.finfo(np.float64).eps,
        tolerance=problem.d * np.finfo(np.float64).eps,
        numbers={
            "largest λ_min(AᵀA)/λ_max(AᵀA)": float(smallest.max()),
            "share of runs that end TRUNCATED": float(truncated.mean()),
            "largest final ‖E‖_F/‖Δ‖_F": float((run["error"][-1].numpy() / size).max()),
        },
    )


HYPOTHESES = ("Gaussian inputs, N = ∞", "r > r*", "Spectral-init with γ = 2")
_SIZES = f"d = {D}, k = {K}, r* = {TRUE_RANK}, κ = {KAPPA:g}, c = {SHIFT:g}, η = {ETA:g}"
SIZES = f"{_SIZES}, r = {listed(RANKS)}"
LAW = "‖E_t‖_F ≈ √(r − r*) λ/(ηt) at fixed damping λ > 0."


CLAIMS = (
    Claim(
        id="lora-one/relu/excess-rank",
        aliases=("5.5",),
        title="Fixed damping makes the convergence sublinear",
        reference="derivations 5.5",
        statement=LAW,
        hypotheses=(
            *HYPOTHESES,
            "within the window: λ/(ηt) well above the imbalance of the superfluous directions",
        ),
        how=(
            f"{SIZES}, λ = {DAMPING:g} (r = {RANKS[0]} in a smoke run); the ratio to the law at "
            f"t = {LATE}."
        ),
        kind="value",
        measure=lambda draws: _fixed(draws, LATE),
        mutant_statement="one superfluous direction whatever r",
        mutant=lambda draws: _fixed(draws, LATE, counted=False),
        trials=30,
        smoke_trials=8,
        explanation=(
            "A law of a window only: the slow phase conserves a² − b² of a direction's two "
            "factors, and once λ/(ηt) has fallen to it the decay is exponential."
        ),
        derivation="5.5",
        uses=("lora-one/relu/lemma-a",),
    ),
    Claim(
        id="lora-one/relu/excess-rank/adaptive",
        aliases=("5.5/adaptive",),
        title="Damping proportional to the residual restores the linear rate",
        reference="derivations 5.5",
        statement=(
            "λ_t = a ρ_t with ρ_t² = ‖𝒢P_B‖_F² + ‖P_A𝒢‖_F², the observable stand-in for risk_t: "
            "the rate is 1 − η/2, as at r = r*."
        ),
        hypotheses=(*HYPOTHESES, "a small: (1 − (η/2)/(1 + a√((r − r*)/2)))² ≤ 1 − η/2"),
        how=f"{SIZES}, a = {FACTOR:g}; the mean contraction of ‖E_t‖_F over t = {EARLY} … {LAST}.",
        kind="value",
        measure=_adaptive,
        mutant_statement=f"{LESS:g} times that contraction",
        mutant=lambda draws: _adaptive(draws, share=LESS),
        trials=30,
        smoke_trials=8,
        derivation="5.5",
        uses=("lora-one/relu/rates", "lora-one/relu/lemma-b"),
    ),
    Claim(
        id="lora-one/relu/excess-rank/undamped",
        aliases=("5.5/undamped",),
        title="Undamped, the Gram matrices become singular",
        reference="derivations 5.5",
        statement=(
            "λ = 0: every run ends with AᵀA singular to working precision, so a plain inverse is "
            "meaningless there; pseudo-inverses are truncated and the run still ends at Δ."
        ),
        hypotheses=HYPOTHESES,
        how=f"{_SIZES}, r = {UNDAMPED_RANK}, {UNDAMPED_STEPS} steps.",
        kind="bound",
        measure=lambda draws: _singular(draws, UNDAMPED_RANK),
        mutant_statement="the same at r = r*",
        mutant=lambda draws: _singular(draws, TRUE_RANK),
        trials=40,
        smoke_trials=8,
        explanation=(
            "Breaking is a matter of how one inverts: pseudo-inverses drop the dead directions, "
            "which is reported as a status, and reach Δ to rounding."
        ),
        derivation="5.5",
        uses=("lora-one/relu/rates",),
    ),
)
