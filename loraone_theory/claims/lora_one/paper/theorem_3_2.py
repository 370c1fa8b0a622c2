"""T3.2: small LoRA-init aligns the column space of A_t with that of the one-step gradient."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

ETA, THETA, TRUE_RANK, RATIO, OUTPUTS = 0.5, 0.1, 4, 16, 16
# The theorem leaves its constants open. Judged with these: 1 in α and in the alignment, and this
# one in the time. The least one that would do is among the numbers.
TIME = 2.0


class Instance(NamedTuple):
    """A batch of problems with A₀ of unit entries, and what T3.2 says of each."""

    problem: LinearProblem
    unit: Factors
    alpha: Tensor  # (n,) θ^{3κ♮/2} d^{−3κ♮/4−1/2} ‖G‖_op^{1/2}
    growth: Tensor  # (n,) ln(1 + ηλ_{r*}(G))
    scale: np.ndarray  # (n,) ln(√d/θ)/growth
    eta: float


def sampled(
    d: int,
    seeds: tuple[int, ...],
    *,
    rank: int,
    kappa: float = 1.0,
    true_rank: int = TRUE_RANK,
    eta: float = ETA,
) -> Instance:
    """Exact-law instances at N = 16d."""
    problem = sample_linear_matrix_free(
        d=d, k=OUTPUTS, true_rank=true_rank, samples=RATIO * d, condition_number=kappa, seeds=seeds
    )
    unit = Factors(*methods.lora(init_std=1.0).init(problem, rank, seeds).trainable)
    return _instance(problem, unit, d, eta)


def at_infinity(d: int, seeds: tuple[int, ...], *, rank: int) -> Instance:
    """Instances at N = ∞ and κ = 1, exactly in law, in r* + r of their d rows.

    With Σ̂ = I only span(U, A₀) moves. In a basis that starts with U, A₀ has r* Gaussian rows; the
    other d − r* rows, rotated among themselves, are the R factor of a Gaussian matrix: its diagonal
    is χ_{d−r*}, χ_{d−r*−1}, …, and above it the entries are Gaussian.
    """
    like = torch.empty(0, dtype=torch.float64)
    freedom = d - TRUE_RANK - np.arange(rank)
    inside = per_seed(lambda rng: normal(rng, TRUE_RANK, rank), seeds, "A0", like)
    outside = per_seed(lambda rng: np.triu(normal(rng, rank, rank), 1), seeds, "A0 outside", like)
    diagonal = per_seed(lambda rng: np.sqrt(rng.chisquare(freedom)), seeds, "A0 diagonal", like)
    A = torch.cat([inside, outside + torch.diag_embed(diagonal)], dim=-2)
    width = TRUE_RANK + rank
    eye = torch.eye(width, TRUE_RANK).to(A).expand(len(seeds), -1, -1)
    shift = Factors(eye, torch.eye(TRUE_RANK, OUTPUTS).to(A).expand(len(seeds), -1, -1))
    problem = LinearProblem.population(shift=shift)
    return _instance(problem, Factors(A, A.new_zeros(len(seeds), rank, OUTPUTS)), d, ETA)


def _instance(problem: LinearProblem, unit: Factors, d: int, eta: float) -> Instance:
    S = linalg.truncated_svd(problem.one_step_gradient(), problem.true_rank).S
    kappa = S[:, 0] / S[:, -1]
    alpha = THETA ** (1.5 * kappa) * d ** (-0.75 * kappa - 0.5) * S[:, 0].sqrt()
    growth = torch.log1p(eta * S[:, -1])
    scale = math.log(math.sqrt(d) / THETA) / growth.numpy()
    return Instance(problem, unit, alpha, growth, scale, eta)


def hitting_time(of: Instance, alpha: Tensor, *, steps: int, every: int = 1) -> np.ndarray:
    """First step at which the alignment is at most θ, log-linear between records; inf if none."""
    run = simulate(
        of.problem, "lora", rank=of.unit.rank, learning_rate=of.eta, steps=steps, every=every,
        initial=Factors(alpha[:, None, None] * of.unit.A, of.unit.B), record=("left_alignment",),
    )  # fmt: skip
    sines = np.log(run["left_alignment"].numpy())
    below = sines <= math.log(THETA)
    after = np.maximum(below.argmax(0), 1)
    ends = [np.take_along_axis(sines, (after - i)[None], 0)[0] for i in (1, 0)]
    high, low = (
        np.where(below.any(0), end, value) for end, value in zip(ends, (1, 0), strict=True)
    )
    share = (high - math.log(THETA)) / (high - low)
    start, stop = run.steps[after - 1], run.steps[after]
    return np.where(below.any(0), start + share * (stop - start), np.inf)


def _reach(draws: Draws, *, lift: float) -> Evidence:
    """Time to alignment θ over its scale, α `lift` times that of the theorem."""
    sizes = {100: 8, 1000: 4, 10_000: 1} if not draws.smoke else {100: 4, 1000: 1}
    found, numbers, constants = [], {}, []
    for block, (d, share) in enumerate(sizes.items() if lift == 1 else [(100, 2)]):
        here = []
        for kappa in (1.0, 2.0):
            seeds = draws.seeds(max(1, draws.trials * share // 8), block=block)
            of = sampled(d, seeds, rank=2 * TRUE_RANK, kappa=kappa)
            steps = math.ceil(TIME * of.scale.max())
            here.append(hitting_time(of, lift * of.alpha, steps=steps, every=2) / of.scale)
        seeds = draws.seeds((4 if draws.smoke else 2) * draws.trials, block=block)
        of = at_infinity(d, seeds, rank=2 * TRUE_RANK)
        steps = math.ceil(TIME * of.scale.max())
        here.append(hitting_time(of, lift * of.alpha, steps=steps, every=2) / of.scale)
        found.append(np.concatenate(here))
        for rank in (TRUE_RANK, TRUE_RANK + 2) if lift == 1 and not draws.smoke else ():
            of = at_infinity(d, seeds, rank=rank)
            share = (hitting_time(of, of.alpha, steps=steps, every=2) < np.inf).mean()
            numbers[f"share within the time at r = {rank}, d = {d}"] = float(share)
        constants.append(float(np.quantile(found[-1], 0.99, method="higher")))
        numbers[f"time constant of 99 % of draws, d = {d}"] = constants[-1]
    if np.isfinite(constants).all() and len(constants) > 1:
        trend = stats.slopes(np.log(list(sizes)), np.log(constants)[:, None])
        numbers["its exponent in d"] = float(trend[0])
    return Evidence(np.concatenate(found), TIME, probability=0.99, numbers=numbers)


@functools.lru_cache(maxsize=1)
def _time_slopes(draws: Draws) -> np.ndarray:
    """Slope of T·ln(1+ηλ(G)) against ln √d, one for each series of instances."""
    widths = np.array([100, 316, 1000] if draws.smoke else [100, 316, 1000, 3162, 10_000])
    times = []
    for block, d in enumerate(widths.tolist()):
        of = sampled(d, draws.seeds(block=block), rank=8, true_rank=1)
        steps = math.ceil(TIME * of.scale.max())
        times.append(
            hitting_time(of, torch.full_like(of.alpha, 1e-7), steps=steps) * of.growth.numpy()
        )
    return stats.slopes(np.log(np.sqrt(widths)), np.stack(times))


def _time_against_width(draws: Draws, *, promised: float) -> Evidence:
    found = _time_slopes(draws)
    # A finite d enters through √(d − 1) + √r for √d: less than √(r/d)/ln 100 = 0.06 in the slope
    # at the small end, and half of that over the whole range.
    return Evidence(found, promised, tolerance=0.03, numbers={"slope": float(found.mean())})


def _time_against_rate(
    draws: Draws, grid: list[tuple[float, float]], *, promised: float, allowance: float
) -> Evidence:
    """Slope of ln T against −ln ln(1+ηλ_{r*}(G)) over pairs (κ, η), at the theorem's α."""
    logs, times = [], []
    for kappa, eta in grid:
        of = sampled(100, draws.seeds(), rank=8, kappa=kappa, eta=eta)
        steps = math.ceil(TIME * of.scale.max())
        times.append(np.log(hitting_time(of, of.alpha, steps=steps, every=1 + steps // 60)))
        logs.append(-np.log(of.growth.numpy()))
    x, y = np.stack(logs), np.stack(times)
    found = np.array([stats.slopes(x[:, i], y[:, [i]])[0] for i in range(x.shape[1])])
    numbers = {"slope": float(found.mean())}
    return Evidence(found, promised, tolerance=allowance, numbers=numbers)


@functools.lru_cache(maxsize=1)
def _excesses(draws: Draws) -> dict[int, np.ndarray]:
    """Rank -> excess of T·ln(1+ηλ) over its upper decile."""
    found = {}
    for block, rank in enumerate((4, 5, 6, 7)):
        of = at_infinity(10_000, draws.seeds(block=block), rank=rank)
        steps = math.ceil(of.scale.max() + (8 + math.log(draws.trials)) / float(of.growth.min()))
        alpha = torch.full_like(of.alpha, 1e-12)
        times = hitting_time(of, alpha, steps=steps, every=4) * of.growth.numpy()
        decile = np.quantile(times, 0.9)
        found[rank] = times[times > decile] - decile
    return found


def _tail(draws: Draws, *, ignore_rank: bool = False) -> Evidence:
    """The excesses times their predicted exponents r − r* + 1."""
    excesses = _excesses(draws)
    numbers = {f"tail exponent at r = {r}": float(1 / e.mean()) for r, e in excesses.items()}
    scaled = [e * (1 if ignore_rank else r - TRUE_RANK + 1) for r, e in excesses.items()]
    # σ_min of a Gaussian r*×r matrix has the density σ^{r−r*}(1 + O(σ)); at the upper decile of
    # the time that makes the exponent 1 % (r = 4) to 9 % (r = 7) too small.
    return Evidence(np.concatenate(scaled), 1.0, tolerance=0.1, numbers=numbers)


_HYPOTHESES = ("linear model", "LoRA-init, GD")
_ALPHA = "α = θ^{3κ♮/2} d^{−3κ♮/4 − 1/2} ‖G‖_op^{1/2}"
_EXACT = f"Exact-law instances at N = {RATIO}d"


def _rate_claim(id: str, grid: list[tuple[float, float]], text: str, allowance: float) -> Claim:
    def measure(draws: Draws, promised: float) -> Evidence:
        return _time_against_rate(draws, grid, promised=promised, allowance=allowance)

    return Claim(
        id=id,
        title="The time to align grows like 1/ln(1 + ηλ_{r*}(G))",
        reference="Theorem 3.2",
        statement=f"T(θ) is proportional to 1/ln(1 + ηλ_{{r*}}(G)), varied through {id[-1]}.",
        hypotheses=(*_HYPOTHESES, "r ≥ 2r*", _ALPHA),
        how=f"{_EXACT}, d = 100, r = 8, {text}; slope in log–log, per instance.",
        kind="value",
        measure=lambda draws: measure(draws, 1.0),
        mutant_statement="the time does not depend on it",
        mutant=lambda draws: measure(draws, 0.0),
        trials=32,
        smoke_trials=16,
        derivation="3.6",
    )


CLAIMS = (
    Claim(
        id="T3.2",
        title="Small LoRA-init aligns with the gradient in logarithmic time",
        reference="Theorem 3.2",
        statement=(
            f"{_ALPHA}: ‖U_{{r*,⊥}}(G)ᵀU_{{r*}}(A_t)‖_op ≤ θ at some "
            f"t ≤ {TIME:g} ln(√d/θ)/ln(1 + ηλ_{{r*}}(G)), with probability at least 0.99."
        ),
        hypotheses=(*_HYPOTHESES, f"r = 2r*, r* = {TRUE_RANK}", _ALPHA),
        how=(
            f"{_EXACT}, κ ∈ {{1, 2}}, and at N = ∞, κ = 1; d ∈ {{100, 1000, 10000}}, θ = {THETA}, "
            f"η = {ETA}. The open constants are set to 1 in α and θ and {TIME:g} in the time."
        ),
        kind="probability",
        measure=lambda draws: _reach(draws, lift=1.0),
        mutant_statement="the bound on α dropped: 3000 times larger",
        mutant=lambda draws: _reach(draws, lift=3000.0),
        trials=240,
        smoke_trials=60,
        explanation=(
            "The time constant that the draws ask for falls towards 1 as d grows, so it does not "
            "hide a power of d. Below r = 2r* it has a tail, see T3.2/r < 2r*."
        ),
        derivation="3.6",
        figure="fig_dimension_scaling.png",
    ),
    Claim(
        id="T3.2/time in d",
        title="The time to align grows like ln √d",
        reference="Theorem 3.2",
        statement="T(θ)·ln(1 + ηλ_{r*}(G)) grows with slope 1 in ln √d.",
        hypotheses=(*_HYPOTHESES, "r ≥ 2r*", "α = 1e-7, small enough at every d used"),
        how=f"{_EXACT}, r* = 1 so that κ♮ = 1, r = 8, d from 100 to 10000, a slope per series.",
        kind="value",
        measure=lambda draws: _time_against_width(draws, promised=1.0),
        mutant_statement="slope 1 in ln d instead of ln √d",
        mutant=lambda draws: _time_against_width(draws, promised=2.0),
        trials=24,
        smoke_trials=16,
        derivation="3.6",
    ),
    _rate_claim(
        "T3.2/time in κ",
        [(kappa, ETA) for kappa in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)],
        "κ = 1, 1.5, 2, 3, 4, 5; beyond, the growing directions differ by more than float64 holds",
        # T·ln(1+ηλ) = ln(√d/θ) + O(1), and the O(1) loses ln 2.7 from κ = 1, where r* directions
        # compete, to large κ, where one is the slowest: ln(1 − 1/5.6)/ln 5 in the slope.
        0.12,
    ),
    _rate_claim(
        "T3.2/time in η",
        [(1.0, 0.5**i) for i in range(1, 7)],
        "η = 1/2, 1/4, …, 1/64",
        # A growing direction gains ½[(1+ηλ)ᵗ + (1−ηλ)ᵗ]; the second term is negligible. λ_i(G)
        # above λ_{r*}(G) shift ln(1+ηλ) by the same factor at every η, up to η itself.
        0.03,
    ),
    Claim(
        id="T3.2/r < 2r*",
        title="Below 2r* the time has an exponential tail",
        reference="Theorem 3.2, the case r* ≤ r < 2r*",
        statement=(
            "Alignment is still reached, but late on some draws: P(T(θ)·ln(1 + ηλ) > x) decays "
            "like exp(−(r − r* + 1)x)."
        ),
        hypotheses=(*_HYPOTHESES, "r* ≤ r < 2r*", "N = ∞, κ = 1", "α = 1e-12"),
        how=(
            "Exact-law instances at d = 10000, r* = 4, r = 4, 5, 6, 7: mean excess over the upper "
            "decile of the time. The slow runs are those with a small σ_min(UᵀA₀)."
        ),
        kind="value",
        measure=lambda draws: _tail(draws),
        mutant_statement="the tail does not depend on r",
        mutant=lambda draws: _tail(draws, ignore_rank=True),
        trials=1500,
        smoke_trials=500,
        derivation="3.6",
    ),
)
