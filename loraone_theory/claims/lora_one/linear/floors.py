"""3.5: the least loss each parametrisation can reach, and the runs that land on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods, predict
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, TRUE_RANK, RATIO, STEPS, RANKS = 100, 8, 16, 3000, (4, 8, 16)
SPECTRUM = tuple(np.linspace(1, 0.25, TRUE_RANK).tolist())
# Of a smoke run.
SMALL, FEWER_STEPS, FEWER_RANKS = 40, 1500, (4, 16)
GAMMA = 4.0
OFFSET = f"LoRA-GA, γ = {GAMMA:g}"
FEWER = ("LoRA-One", OFFSET, "LoRA-SB")
EPS = np.finfo(np.float64).eps
METHODS = {
    "LoRA": lambda: methods.lora(),
    "LoRA-One": lambda: methods.lora_one(),
    "LoRA-One, damped preconditioner": lambda: methods.lora_one_preconditioned(),
    "LoRA+": lambda: methods.lora_plus(ratio=4.0),
    OFFSET: lambda: methods.lora_ga(gamma=GAMMA),
    "LoRA-SB": lambda: methods.lora_sb(),
}


def _instances(draws: Draws, width: int) -> tuple[LinearProblem, tuple[int, ...]]:
    seeds = draws.seeds()
    problem = sample_linear(
        d=width,
        k=width,
        true_rank=TRUE_RANK,
        samples=RATIO * width,
        spectrum=SPECTRUM,
        seeds=seeds,
    )
    return problem, seeds


def _end(problem: LinearProblem, method: Method, rank: int, seeds: tuple[int, ...]) -> Tensor:
    """Losses at three equally spaced late times, (3, n)."""
    steps = STEPS if problem.d == D else FEWER_STEPS
    # The preconditioned rule needs some damping wherever r exceeds the rank of what is left.
    run = simulate(
        problem,
        method,
        rank=rank,
        learning_rate=0.25,
        steps=steps,
        seeds=seeds,
        damping=1e-3 if method.facts.inverts else 0.0,
        record=("loss",),
        every=steps // 4,
    )
    return run["loss"][-3:]


def _reached(draws: Draws, *, offset: bool) -> Evidence:
    """Final losses against floors, in units of ½‖Σ̂^{1/2}Δ‖²; `offset` False forgets it in T."""
    width = SMALL if draws.smoke else D
    problem, seeds = _instances(draws, width)
    unit = problem.loss(Factors(0 * problem.shift.A, problem.shift.B))
    names = list(FEWER) if draws.smoke else list(METHODS)
    found, promised, allowed, numbers = [], [], [], {}
    for name in names if offset else [OFFSET]:
        farthest = 0.0
        for rank in FEWER_RANKS if draws.smoke else RANKS:
            method = METHODS[name]()
            floor = predict.floor(problem, method, rank=rank, seeds=seeds)
            if not offset:
                floor = predict.pair_floor(problem, rank=rank)
            losses = _end(problem, method, rank, seeds)
            found.append(losses[-1] / unit)
            promised.append(floor / unit)
            allowed.append(_still_to_fall(losses) / unit + EPS * width)
            farthest = max(farthest, float((found[-1] - promised[-1]).abs().max()))
            if name in FEWER and rank < RANKS[-1]:
                numbers[f"mean loss reached, {name}, r = {rank}"] = float(losses[-1].mean())
        numbers[f"largest distance from the floor / loss at the start, {name}"] = farthest
    return Evidence(
        torch.cat(found).numpy(),
        torch.cat(promised).numpy(),
        # Never more than 1e-5 of the loss at the start, however slow the run.
        tolerance=torch.cat(allowed).clamp_max(1e-5).numpy(),
        numbers=numbers,
    )


def _still_to_fall(losses: Tensor) -> Tensor:
    """What a geometric tail through three equally spaced losses still falls, twice over."""
    before, last = losses[-3] - losses[-2], losses[-2] - losses[-1]
    ratio = (last / before.clamp_min(torch.finfo(losses.dtype).tiny)).clamp(0, 0.999)
    return 2 * last.clamp_min(0) * ratio / (1 - ratio)


def _below(draws: Draws, *, strength: float) -> Evidence:
    """floor ≤ loss of the Eckart–Young factors of rank r, and of factors moved away from them."""
    problem, seeds = _instances(draws, 24)
    rank = 5
    floor = predict.pair_floor(problem, rank=rank)
    assert isinstance(problem.covariance, Dense)
    values, Q = torch.linalg.eigh(problem.covariance.matrix)
    root = (Q * values.sqrt()[..., None, :]) @ Q.mT
    inverse = (Q / values.sqrt()[..., None, :]) @ Q.mT
    U, S, Vh = torch.linalg.svd(root @ problem.shift.dense())
    A = inverse @ (U[..., :rank] * S[..., None, :rank])
    best = Factors(A, Vh[..., :rank, :])
    losses = [problem.loss(best)]
    for size in (1e-3, 1e-1, 1.0):
        noise_A = per_seed(lambda rng: normal(rng, 24, rank), seeds, f"A {size}", A)
        noise_B = per_seed(lambda rng: normal(rng, rank, 24), seeds, f"B {size}", A)
        losses.append(problem.loss(Factors(best.A + size * noise_A, best.B + size * noise_B)))
    unit = problem.loss(Factors(0 * A, Vh[..., :rank, :]))
    # Σ̂^{1/2} and its inverse carry the condition number of Σ̂, squared in the loss.
    condition = (values[:, -1] / values[:, 0]).repeat(len(losses))
    return Evidence(
        lhs=(strength * floor / unit).repeat(len(losses)).numpy(),
        rhs=(torch.cat(losses) / unit.repeat(len(losses))).numpy(),
        tolerance=(10 * 24 * EPS * condition).numpy(),
        numbers={
            "largest loss/floor − 1 of the Eckart–Young factors": float(
                (losses[0] / floor - 1).abs().max()
            ),
            "smallest loss/floor of other factors": float(torch.stack(losses[1:]).div(floor).min()),
        },
    )


def _scale(draws: Draws, *, rank: int) -> Evidence:
    """LoRA-GA's floor minus LoRA-One's at γ = 4, in units of the loss at the start."""
    problem, seeds = _instances(draws, SMALL if draws.smoke else D)
    unit = problem.loss(Factors(0 * problem.shift.A, problem.shift.B))
    one = predict.floor(problem, "lora-one", rank=rank)
    numbers = {"LoRA-One": float(one.mean())}
    for gamma in (1.0, 4.0, 16.0, 64.0, 256.0):
        ga = predict.floor(problem, methods.lora_ga(gamma=gamma), rank=rank, seeds=seeds)
        numbers[f"LoRA-GA, γ = {gamma:g}"] = float(ga.mean())
        if gamma == GAMMA:
            gap = (ga - one) / unit
    return Evidence(lhs=gap.numpy(), rhs=0.0, tolerance=EPS * D, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/linear/floors",
        aliases=("3.5",),
        title="Runs land on the predicted floors",
        reference="derivations 3.5",
        statement=(
            "The least loss is ½ Σ_{i>r} σ_i²(Σ̂^{1/2}T) with T = Δ + offset for methods that "
            "train "
            "A and B, and the least-squares value over R for A R B; gradient descent reaches it."
        ),
        hypotheses=("linear model",),
        how=(
            f"{STEPS} steps of {len(METHODS)} methods at r = {listed(RANKS)}, r* = {TRUE_RANK}, "
            f"d = k = {D} (in a smoke run {FEWER_STEPS} of {len(FEWER)} at r = "
            f"{listed(FEWER_RANKS)} and d = {SMALL}), N = {RATIO}d, λ* equally spaced from "
            f"{SPECTRUM[0]:g} to {SPECTRUM[-1]:g}; final loss against floor within what a "
            "geometric tail through the last losses still falls."
        ),
        kind="identity",
        measure=lambda draws: _reached(draws, offset=True),
        mutant_statement="LoRA-GA with its offset left out of T",
        mutant=lambda draws: _reached(draws, offset=False),
        trials=3,
        smoke_trials=1,
        derivation="3.5",
        uses=("lora-one/linear/floors/bound",),
    ),
    Claim(
        id="lora-one/linear/floors/bound",
        aliases=("3.5/bound",),
        title="No factors of rank r lie below the floor",
        reference="derivations 3.5",
        statement="½ Σ_{i>r} σ_i²(Σ̂^{1/2}Δ) ≤ L(AB) for all A, B of rank r, with equality at one.",
        hypotheses=("linear model",),
        how="The Eckart–Young factors in the Σ̂ metric, and random factors near and far from them.",
        kind="bound",
        measure=lambda draws: _below(draws, strength=1.0),
        mutant_statement="the floor raised by 1e-6 of itself",
        mutant=lambda draws: _below(draws, strength=1 + 1e-6),
        trials=300,
        smoke_trials=30,
        derivation="3.5",
    ),
    Claim(
        id="lora-one/linear/floors/scale",
        aliases=("3.5/scale",),
        title="Below the true rank an offset can act as extra rank",
        reference="derivations 3.5; Sec. 5, Fig. 4",
        statement="At r = r*/2 and γ = 4 LoRA-GA's floor lies below LoRA-One's.",
        hypotheses=("linear model", "r < r*", "a large offset"),
        how=(
            f"Floors at r = {RANKS[0]}, r* = {TRUE_RANK}, over γ; sizes as for "
            "lora-one/linear/floors."
        ),
        kind="bound",
        measure=lambda draws: _scale(draws, rank=RANKS[0]),
        mutant_statement="the same at r = r*",
        mutant=lambda draws: _scale(draws, rank=TRUE_RANK),
        trials=20,
        smoke_trials=3,
        explanation="So Fig. 4's order of methods depends on LoRA-GA's scale for r < r*.",
        derivation="3.5",
        uses=("lora-one/linear/floors/bound",),
    ),
)
