"""5.6: less rank than needed: the floor that runs end at, and how fast they approach it."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.predict import relu as predict_relu
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

RANK, TRUE_RANK, ETA, SHIFT, KAPPA = 2, 4, 0.5, 0.1, 3.0
# Of each claim: d = k and steps, and those of a smoke run.
FLOOR_SIZE, FLOOR_STEPS = 50, 150
SAMPLE_SIZE, SAMPLE_STEPS, RATIOS = 20, 100, (8, 16, 32, 64, 128, 256)
SMALL_SAMPLE_SIZE, FEWER_SAMPLE_STEPS, FEWER_RATIOS = 10, 60, (8, 256)
RATE_SIZE, EARLY, LATER, SMALL_RATE_SIZE, SOONER = 50, 100, 100, 20, 60
METHOD = "lora-one-preconditioned"
EPS = np.finfo(np.float64).eps


def _population(d: int, draws: Draws) -> ReLUPopulation:
    return sample_relu_population(
        d=d, k=d, true_rank=TRUE_RANK, relative_shift=SHIFT, condition_number=KAPPA,
        seeds=draws.seeds(),
    )  # fmt: skip


def _excess(problem: ReLUProblem | ReLUPopulation, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """δ: final ‖E‖_F over the Eckart–Young distance less 1; and the spectrum of Δ."""
    run = simulate(
        problem, METHOD, rank=RANK, learning_rate=ETA, steps=steps, record=("error",), every=steps
    )
    spectrum = torch.linalg.svdvals(problem.shift.dense())[..., :TRUE_RANK]
    floor = predict_relu.deficient_floor(spectrum, RANK)
    return (run["error"][-1] / floor - 1).numpy(), spectrum.numpy()


def _floor(draws: Draws, *, allowed: float) -> Evidence:
    excess, _ = _excess(_population(FLOOR_SIZE, draws), FLOOR_STEPS)
    # Below the Eckart–Young distance is as wrong as far above it.
    wrong = np.where(excess < -50 * EPS, np.inf, excess)
    return Evidence(
        lhs=wrong,
        rhs=allowed,
        tolerance=50 * EPS,
        numbers={"largest δ": float(excess.max()), "mean δ": float(excess.mean())},
    )


def _samples(draws: Draws, *, promised: float) -> Evidence:
    """Exponent of δ in N/d, one slope per seed."""
    d = SMALL_SAMPLE_SIZE if draws.smoke else SAMPLE_SIZE
    ratios = FEWER_RATIOS if draws.smoke else RATIOS
    found, numbers = [], {}
    for block, ratio in enumerate(ratios):
        problem = sample_relu(
            d=d, k=d, true_rank=TRUE_RANK, samples=ratio * d, relative_shift=SHIFT,
            condition_number=KAPPA, seeds=draws.seeds(block=block),
        )  # fmt: skip
        excess, _ = _excess(problem, FEWER_SAMPLE_STEPS if draws.smoke else SAMPLE_STEPS)
        found.append(excess)
        numbers[f"mean δ at N = {ratio}d"] = float(excess.mean())
    slopes = stats.slopes(np.log(np.array(ratios)), np.log(np.stack(found)))
    return Evidence(
        lhs=slopes,
        rhs=promised,
        # The next order in √(d/N), a relative third at N = 8d, on one end of the regression.
        tolerance=0.15,
        numbers=numbers,
    )


def _rate(draws: Draws, *, gap: bool) -> Evidence:
    """Contraction of ‖A_tB_t − its limit‖_F after t = `EARLY`, over the promised one."""
    problem = _population(SMALL_RATE_SIZE if draws.smoke else RATE_SIZE, draws)
    later = SOONER if draws.smoke else LATER
    products, last = [], None
    for steps in (EARLY, later, 160):
        run = simulate(
            problem, METHOD, rank=RANK, learning_rate=ETA, steps=steps, initial=last, record=()
        )
        last = run.final
        products.append(last.dense())
    early, late = (torch.linalg.matrix_norm(P - products[-1]) for P in products[:2])
    measured = (late / early) ** (1 / later)
    spectrum = torch.linalg.svdvals(problem.shift.dense())[..., :TRUE_RANK]
    promised = 1 - predict_relu.deficient_rate(ETA, spectrum, RANK)
    if not gap:
        promised = torch.full_like(promised, 1 - predict_relu.population_rate(ETA))
    return Evidence(
        lhs=((1 - measured) / promised).numpy(),
        rhs=1.0,
        # J is ½E up to c/π, relatively, and E does not vanish here; as much again because the
        # contraction is itself a difference of singular values.
        tolerance=2 * SHIFT / np.pi,
        numbers={
            "mean rate": float(measured.mean()),
            "mean of (1 − rate) over the promised": float(((1 - measured) / promised).mean()),
        },
    )


HYPOTHESES = ("Gaussian inputs", "r < r*, λ_r > λ_{r+1}", "preconditioned GD, Spectral-init, γ = 2")
SIZES = f"r = {RANK}, r* = {TRUE_RANK}, κ = {KAPPA:g}, c = {SHIFT:g}, η = {ETA:g}"

CLAIMS = (
    Claim(
        id="lora-one/relu/deficient-rank",
        aliases=("5.6",),
        title="Too small a rank ends at the Eckart–Young floor, N = ∞",
        reference="derivations 5.6",
        statement=(
            "‖E_t‖_F → (1 + δ) √(Σ_{i>r} (λ_i*)²), with 0 ≤ δ ≤ 1e-5 at c = 0.1 for generic Δ."
        ),
        hypotheses=(*HYPOTHESES, "N = ∞"),
        how=f"d = k = {FLOOR_SIZE}, {SIZES}, {FLOOR_STEPS} steps.",
        kind="bound",
        measure=lambda draws: _floor(draws, allowed=1e-5),
        mutant_statement="δ ≤ 1e-8",
        mutant=lambda draws: _floor(draws, allowed=1e-8),
        trials=40,
        smoke_trials=4,
        explanation="δ ≥ 0 is Eckart–Young; δ = O(c²) is proved, its constant is measured.",
        derivation="5.6",
        uses=("lora-one/relu/lemma-a", "lora-one/linear/floors/bound"),
    ),
    Claim(
        id="lora-one/relu/deficient-rank/finite-n",
        aliases=("5.6/finite N",),
        title="The excess over the floor falls like d/N",
        reference="derivations 5.6",
        statement="δ at finite N is of order d/N: the exponent of δ in N/d is −1.",
        hypotheses=HYPOTHESES,
        how=(
            f"d = k = {SAMPLE_SIZE}, {SIZES}, N/d = {listed(RATIOS)} ({listed(FEWER_RATIOS)} at "
            f"d = {SMALL_SAMPLE_SIZE} in a smoke run), one slope per seed."
        ),
        kind="value",
        measure=lambda draws: _samples(draws, promised=-1.0),
        mutant_statement="the exponent −1/2",
        mutant=lambda draws: _samples(draws, promised=-0.5),
        trials=16,
        smoke_trials=30,
        derivation="5.6",
        uses=("lora-one/relu/deficient-rank", "lora-one/relu/one-step/finite-n"),
    ),
    Claim(
        id="lora-one/relu/deficient-rank/rate",
        aliases=("5.6/rate",),
        title="The rate of the approach to the floor",
        reference="derivations 5.6",
        statement=(
            "‖A_tB_t − lim A_tB_t‖_F contracts by 1 − (η/2)(1 − λ*_{r+1}/λ*_r) a step; judged by "
            "the contraction 1 − rate."
        ),
        hypotheses=(*HYPOTHESES, "N = ∞", "small relative shift"),
        how=(
            f"d = k = {RATE_SIZE} ({SMALL_RATE_SIZE} in a smoke run), {SIZES}, from t = {EARLY} "
            "on, over "
            f"{LATER} steps ({SOONER} in a smoke run)."
        ),
        kind="value",
        measure=lambda draws: _rate(draws, gap=True),
        mutant_statement="the rate at r = r*, 1 − η/2",
        mutant=lambda draws: _rate(draws, gap=False),
        trials=12,
        smoke_trials=4,
        explanation=(
            "It is the rate of the product A_tB_t. ‖E_t‖_F itself differs from its limit by the "
            "square of that distance."
        ),
        derivation="5.6",
        uses=("lora-one/relu/lemma-a", "lora-one/linear/one-step/preconditioned"),
    ),
)
