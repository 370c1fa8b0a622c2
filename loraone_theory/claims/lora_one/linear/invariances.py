"""3.1: which changes of coordinates a trajectory does not see: gauge and rotation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.methods import Method
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, RANK, STEPS, RATE, RATIO = 14, 11, 3, 25, 0.1, 4.0
SAMPLES_RATIO, KAPPA, STRETCH = 8, 2.0, 3.0
GA_RANK = 2
GA_TRUE_RANK = 2 * GA_RANK
# Methods whose start is made of the problem, or is zero.
OWN = ("lora-one", "lora-one-preconditioned", "lora-sb", "full")


def _instances(draws: Draws) -> tuple[LinearProblem, Factors]:
    """Instances with N = 8d, κ = 2, and factors of full rank near Spectral-init."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=RANK, samples=SAMPLES_RATIO * D, condition_number=KAPPA, seeds=seeds,
        **draws.place,
    )  # fmt: skip
    A, B = methods.lora_one().init(problem, RANK, (0,)).trainable
    A = A + 0.1 * per_seed(lambda rng: normal(rng, D, RANK), seeds, "gauge A", A)
    B = B + 0.1 * per_seed(lambda rng: normal(rng, RANK, K), seeds, "gauge B", B)
    return problem, Factors(A, B)


def _run(
    problem: LinearProblem, method: str | Method, initial: Factors | None, rank: int = RANK
) -> Trajectory:
    chosen = methods.get(method, rank)
    return simulate(
        problem,
        chosen if initial is None else chosen.started_at(initial),
        rank=rank,
        learning_rate=RATE,
        steps=STEPS,
        record=("loss",),
        reduce="never",
    )


def _tolerance(
    problem: LinearProblem, runs: tuple[Trajectory, ...], *, inverts: bool, ratio: float = 1.0
) -> Tensor:
    """Rounding of d·eps in each of T steps, times what later steps can make of it.

    The Hessian of L at (A, B) is at least −‖Σ̂E‖_op, so a stable gradient step enlarges a
    difference by at most 1 + ηλ‖Σ̂E_t‖_op (λ the ratio of LoRA+, with √λ for its metric), and
    ‖Σ̂E_t‖_op² ≤ 2‖Σ̂‖_op L_t. Steps with Gram inverses lose the square of the factors' condition
    numbers, and contract what is there.
    """
    top = problem.covariance_spectrum()[..., -1]
    growth = torch.stack([(2 * top * run["loss"]).sqrt().sum(0) for run in runs]).amax(0)
    eps = torch.finfo(top.dtype).eps
    answer = D * STEPS * eps * ratio**0.5 * torch.exp(ratio * RATE * growth)
    if not inverts:
        return answer
    ends = [M for run in runs for pair in (run.initial, run.final) for M in pair]
    conditions = [torch.linalg.cond(M).expand(answer.shape) for M in ends]
    return answer * torch.stack(conditions).amax(0) ** 2


def _distance(first: Tensor, second: Tensor, problem: LinearProblem) -> Tensor:
    size = torch.linalg.matrix_norm(problem.shift.dense())
    return torch.linalg.matrix_norm(first - second) / size


def _gauge(draws: Draws, name: str, *, stretch: float) -> Evidence:
    """AB of runs from (A₀, B₀) and (A₀Q, Q⁻¹B₀), Q's singular values in [1/stretch, stretch]."""
    problem, initial = _instances(draws)
    left, right = (
        per_seed(lambda rng: haar_frame(rng, RANK, RANK), draws.seeds(), stream, initial.A)
        for stream in ("gauge left", "gauge right")
    )
    sigma = torch.logspace(-1, 1, RANK, base=stretch, dtype=torch.float64).to(initial.A)
    moved = Factors(initial.A @ (left * sigma) @ right, right.mT @ (left / sigma).mT @ initial.B)
    runs = (_run(problem, name, initial), _run(problem, name, moved))
    distance = _distance(runs[0].final.dense(), runs[1].final.dense(), problem)
    tolerance = _tolerance(problem, runs, inverts=name == "p-lora")
    return Evidence(
        lhs=distance.cpu().numpy(),
        rhs=0.0,
        tolerance=tolerance.cpu().numpy(),
        numbers={
            "largest relative distance": float(distance.max()),
            "smallest tolerance": float(tolerance.min()),
        },
    )


def _rotated(
    problem: LinearProblem, seeds: tuple[int, ...]
) -> tuple[LinearProblem, Tensor, Tensor]:
    """(XO₁, O₁ᵀΔO₂) with Haar O₁, O₂."""
    O1 = per_seed(lambda rng: haar_frame(rng, D, D), seeds, "rotation left", problem.like)
    O2 = per_seed(lambda rng: haar_frame(rng, K, K), seeds, "rotation right", problem.like)
    assert isinstance(problem.covariance, Dense)
    turned = replace(
        problem,
        covariance=Dense(O1.mT @ problem.covariance.matrix @ O1),
        shift=Factors(O1.mT @ problem.shift.A, problem.shift.B @ O2),
        pretrained=None,
    )
    return turned, O1, O2


def _own_starts(draws: Draws, *, signed: bool) -> Evidence:
    """LoRA-GA's own starts in both frames, `signed`: with the signs of the first in the second."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D,
        k=K,
        true_rank=GA_TRUE_RANK,
        samples=SAMPLES_RATIO * D,
        condition_number=KAPPA,
        seeds=seeds,
    )
    turned, O1, O2 = _rotated(problem, seeds)
    method = methods.lora_ga()
    first, second = (
        Factors(*method.init(place, GA_RANK, seeds).trainable) for place in (problem, turned)
    )
    signs = Factors(
        ((O1.mT @ first.A) * second.A).sum(-2, keepdim=True).sign(),
        ((first.B @ O2) * second.B).sum(-1, keepdim=True).sign(),
    )
    agree = ((signs.A.mT * signs.B) > 0).all(-2).double().mean()
    if signed:
        second = Factors(second.A * signs.A, signs.B * second.B)
    runs = tuple(
        _run(place, method.started_at(start), None, rank=GA_RANK)
        for place, start in ((problem, first), (turned, second))
    )
    shift = O1.mT @ runs[0].learned_shift().dense() @ O2
    distance = _distance(shift, runs[1].learned_shift().dense(), problem)
    allowed = _tolerance(problem, runs, inverts=False)
    return Evidence(
        lhs=distance.cpu().numpy(),
        rhs=0.0,
        tolerance=allowed.numpy(),
        numbers={
            "largest relative distance": float(distance.max()),
            "share of starts that rotate by themselves": float(agree),
        },
    )


def _rotation(draws: Draws, names: tuple[str, ...]) -> Evidence:
    """O₁ᵀ(learned shift)O₂ of a run against the learned shift of the rotated run."""
    problem, initial = _instances(draws)
    turned, O1, O2 = _rotated(problem, draws.seeds())
    found, allowed, numbers = [], [], {}
    for name in names:
        method = methods.lora_plus(ratio=RATIO) if name == "lora+" else methods.get(name)
        # Starts made from G, and that of full fine-tuning, have to turn with the problem.
        given = name not in OWN
        there = _run(problem, method, initial if given else None)
        moved = Factors(O1.mT @ initial.A, initial.B @ O2)
        here = _run(turned, method, moved if given else None)
        shift = O1.mT @ there.learned_shift().dense() @ O2
        found.append(_distance(shift, here.learned_shift().dense(), problem))
        inverts = name in ("p-lora", "lora-pro", "lora-one-preconditioned")
        ratio = RATIO if name == "lora+" else 1.0
        allowed.append(_tolerance(problem, (there, here), inverts=inverts, ratio=ratio))
        numbers[f"largest relative distance, {name}"] = float(found[-1].max())
    return Evidence(
        lhs=torch.cat(found).cpu().numpy(),
        rhs=0.0,
        tolerance=torch.cat(allowed).cpu().numpy(),
        numbers=numbers,
    )


_SIZES = (
    f"d = {D}, k = {K}, r = r* = {RANK}, N = {SAMPLES_RATIO}d, κ = {KAPPA:g}, {STEPS} steps of η "
    f"= {RATE}, unreduced"
)
_GIVEN = ("lora", "lora-momentum", "p-lora", "lora+", "lora-pro")
_GA_SIZES = (
    f"d = {D}, k = {K}, r = {GA_RANK}, r* = {GA_TRUE_RANK}, N = {SAMPLES_RATIO}d, κ = {KAPPA:g}, "
    f"{STEPS} steps of η = {RATE}"
)

CLAIMS = (
    Claim(
        id="lora-one/linear/gauge",
        aliases=("3.1",),
        title="Preconditioned gradient descent does not see the gauge",
        reference="derivations 3.1(a)",
        statement=(
            "Preconditioned GD from (A₀Q, Q⁻¹B₀) has the same A_tB_t for every invertible Q."
        ),
        hypotheses=("A_t, B_t of full rank r", "no damping"),
        how=f"Two runs, singular values of Q between {STRETCH:g} and its inverse; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _gauge(draws, "p-lora", stretch=STRETCH),
        mutant_statement="the same of gradient descent",
        mutant=lambda draws: _gauge(draws, "lora", stretch=STRETCH),
        trials=300,
        smoke_trials=20,
        derivation="3.1",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/gauge/gd",
        aliases=("3.1/GD",),
        title="Gradient descent does not see an orthogonal gauge",
        reference="derivations 3.1(a)",
        statement="GD from (A₀Q, QᵀB₀) has the same A_tB_t for every orthogonal Q.",
        hypotheses=("Q orthogonal",),
        how=f"Two runs with a Haar Q; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _gauge(draws, "lora", stretch=1.0),
        mutant_statement="Q with singular values in [0.99, 1.01]",
        mutant=lambda draws: _gauge(draws, "lora", stretch=1.01),
        trials=300,
        smoke_trials=20,
        derivation="3.1",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/rotation",
        aliases=("3.1/rotation",),
        title="Rotations of both spaces rotate the run",
        reference="derivations 3.1(b)",
        statement=(
            "From (XO₁, O₁ᵀΔO₂, O₁ᵀA₀, B₀O₂) with orthogonal O₁, O₂ the learned shift is O₁ᵀ(…)O₂ "
            "of the original one, for GD, momentum, preconditioned GD, LoRA+ and LoRA-Pro; and so "
            "it is for LoRA-One, LoRA-SB and full fine-tuning from the starts that they make "
            "themselves of (XO₁, O₁ᵀΔO₂)."
        ),
        hypotheses=("O₁, O₂ orthogonal", "a rule that is not entrywise"),
        how=f"Two runs of each method with Haar O₁, O₂; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _rotation(draws, _GIVEN + OWN),
        mutant_statement="the same of Adam, which is entrywise",
        mutant=lambda draws: _rotation(draws, ("lora-adamw",)),
        trials=100,
        smoke_trials=10,
        derivation="3.1",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/rotation/lora-ga",
        aliases=("3.1/LoRA-GA",),
        title="LoRA-GA's own start rotates up to its signs, and not without them",
        reference="derivations 3.1(b)",
        statement=(
            "LoRA-GA's own start in rotated coordinates, with the signs of the original's columns "
            "of A₀ and rows of B₀ put in, gives the rotated run."
        ),
        hypotheses=("2r ≤ r*", "singular values of G apart"),
        how=f"Two unreduced runs from their own starts with Haar O₁, O₂; {_GA_SIZES}.",
        kind="identity",
        measure=lambda draws: _own_starts(draws, signed=True),
        mutant_statement="the start as it comes, with signs from the entries of U",
        mutant=lambda draws: _own_starts(draws, signed=False),
        trials=100,
        smoke_trials=10,
        derivation="3.1",
        uses=("lora-one/linear/rotation",),
    ),
)
