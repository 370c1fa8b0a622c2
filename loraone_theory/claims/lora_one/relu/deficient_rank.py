"""5.6: less rank than needed: the floor that runs end at, and how fast they approach it."""

from __future__ import annotations

import functools

import numpy as np
import torch

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.predict import relu as predict_relu
from loraone_theory.problems.relu.closed_forms import negative_gradient
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

RANK, TRUE_RANK, ETA, SHIFT, KAPPA = 2, 4, 0.5, 0.1, 3.0
# Of each claim: d = k and steps, and those of a smoke run.
FLOOR_SIZE, FLOOR_STEPS = 50, 150
# δ that no draw is above.
MOST = 1e-5
SAMPLE_SIZE, SAMPLE_STEPS, RATIOS = 20, 100, (8, 16, 32, 64, 128, 256)
SMALL_SAMPLE_SIZE, FEWER_SAMPLE_STEPS, FEWER_RATIOS = 10, 60, (8, 256)
RATE_SIZE, EARLY, LATER, SMALL_RATE_SIZE, SOONER = 50, 100, 100, 20, 60
METHOD = "lora-one-preconditioned"
# Of the mutants: of the exponent, whose allowance is so wide that few draws do not tell it from a
# fifth less, and of the rate.
LESS, FASTER = 0.75, 1.2
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


def _first_order(problem: ReLUPopulation, *, coupled: bool) -> np.ndarray:
    """δ to leading order in c: how far R = 2J − E at the best rank-r matrix shifts the end."""
    shift = problem.shift.dense()
    U, S, Vh = torch.linalg.svd(shift)
    best = U[..., :RANK] * S[..., None, :RANK] @ Vh[..., :RANK, :]
    E = shift - best
    R = U.mT @ (2 * negative_gradient(E, problem.pretrained + best) - E) @ Vh.mT
    across, down = R[..., :RANK, RANK:], R[..., RANK:, :RANK].mT  # d = k
    share = S[..., None, RANK:] / S[..., :RANK, None] * coupled  # λ_j/λ_i
    Z, W = (across + share * down) / (1 - share**2), (down + share * across) / (1 - share**2)
    square = (R[..., :RANK, :RANK] ** 2).sum((-2, -1))
    square = square + (Z * Z + W * W - 2 * share * Z * W).sum((-2, -1))
    return (square / (2 * (S[..., RANK:] ** 2).sum(-1))).numpy()


def _floor(draws: Draws, *, coupled: bool) -> Evidence:
    problem = _population(FLOOR_SIZE, draws)
    excess, _ = _excess(problem, FLOOR_STEPS)
    # Below the Eckart–Young distance, or far above it, is wrong whatever the mean.
    wrong = (excess < -50 * EPS) | (excess > MOST)
    return Evidence(
        lhs=np.where(wrong, np.inf, excess / _first_order(problem, coupled=coupled)),
        rhs=1.0,
        # The next order in c: of R, where the end is not the best matrix, and of the projections.
        tolerance=2 * SHIFT / np.pi,
        numbers={"largest δ": float(excess.max()), "mean δ": float(excess.mean())},
    )


@functools.lru_cache(maxsize=4)
def _slopes(draws: Draws) -> tuple[np.ndarray, dict[str, float]]:
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
    return stats.slopes(np.log(np.array(ratios)), np.log(np.stack(found))), numbers


def _samples(draws: Draws, *, promised: float) -> Evidence:
    slopes, numbers = _slopes(draws)
    return Evidence(
        lhs=slopes,
        rhs=promised,
        # The next order in √(d/N), a relative third at N = 8d, on one end of the regression.
        tolerance=0.15,
        numbers=numbers,
    )


def _rate(draws: Draws, *, times: float) -> Evidence:
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
    promised = times * (1 - predict_relu.deficient_rate(ETA, spectrum, RANK))
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
            "‖E_t‖_F → (1 + δ) √(Σ_{i>r} (λ_i*)²), with δ ≥ 0 of order c²: that of the shift which "
            f"R = 2J − E causes, to leading order. At c = {SHIFT:g} δ ≤ {MOST:g} for generic Δ."
        ),
        hypotheses=(*HYPOTHESES, "N = ∞"),
        how=f"d = k = {FLOOR_SIZE}, {SIZES}, {FLOOR_STEPS} steps; δ over that.",
        kind="value",
        measure=lambda draws: _floor(draws, coupled=True),
        mutant_statement="without λ_j/λ_i, by which the two halves of the shift act on each other",
        mutant=lambda draws: _floor(draws, coupled=False),
        trials=40,
        smoke_trials=20,
        explanation="δ ≥ 0 is Eckart–Young; what is left is the next order in c.",
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
        mutant_statement=f"the exponent −{LESS:g}",
        mutant=lambda draws: _samples(draws, promised=-LESS),
        trials=16,
        smoke_trials=100,
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
        measure=lambda draws: _rate(draws, times=1.0),
        mutant_statement=f"{FASTER:g} times the contraction",
        mutant=lambda draws: _rate(draws, times=FASTER),
        trials=12,
        smoke_trials=10,
        explanation=(
            "It is the rate of the product A_tB_t. ‖E_t‖_F itself differs from its limit by the "
            "square of that distance."
        ),
        derivation="5.6",
        uses=("lora-one/relu/lemma-a", "lora-one/linear/one-step/preconditioned"),
    ),
)
