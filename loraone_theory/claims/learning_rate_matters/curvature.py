"""λ_max of the Hessian where three initialisations start: closed forms, and their order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.learning_rate_matters.base import KAPPA, RANK, TOP, D, parts
from loraone_theory.claims.population import EPS, gaussian
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.problem import LinearProblem

SMALL, RATE = 1e-3, 1e-3
# The record's Lanczos stops at a relative ε^{2/3}; ten times that.
ACCURACY = 10 * EPS ** (2 / 3)

Law = Callable[[Factors, Factors, Tensor], Tensor]  # (A₀, B₀), Δ, W


def sharpness(problem: Problem, method: Method, seeds: tuple[int, ...]) -> tuple[Tensor, Factors]:
    """λ_max at the start, and the start."""
    run = simulate(
        problem, method, rank=RANK, learning_rate=RATE, steps=1, seeds=seeds, keep_factors=1,
        record=("sharpness",), reduce="never",
    )  # fmt: skip
    assert run.factors is not None  # they were asked for
    return run["sharpness"][0], Factors(run.factors.A[0], run.factors.B[0])


def _value(M: Tensor, place: int) -> Tensor:
    return torch.linalg.svdvals(M)[..., place]


def of_pissa(start: Factors, shift: Factors, W: Tensor) -> Tensor:
    """2σ₁(W)."""
    return 2 * _value(W, 0)


def of_lora_one(start: Factors, shift: Factors, W: Tensor) -> Tensor:
    """2σ₁(Δ)."""
    return 2 * _value(shift.dense(), 0)


def of_lora(start: Factors, shift: Factors, W: Tensor) -> Tensor:
    """(a + √(a² + 4σ₁(Δ)²))/2, a = λ_max(A₀ᵀA₀)."""
    a, top = _value(start.A, 0) ** 2, _value(shift.dense(), 0)
    return (a + (a.square() + 4 * top.square()).sqrt()) / 2


def _at_start(draws: Draws, method: Method, law: Law, *, size: float = 1.0) -> Evidence:
    """λ_max over the law; where the residual is not in it, it may change λ_max by ‖Δ‖_op."""
    seeds = draws.seeds()
    shift, W = parts(seeds, size)
    problem = LinearProblem.population(shift=shift, pretrained=W)
    found, start = sharpness(problem, method, seeds)
    allowed = ACCURACY + (size / found if size < 1 else torch.zeros_like(found))
    return Evidence((found / law(start, shift, W)).numpy(), 1.0, tolerance=allowed.numpy())


SAMPLES, TIMES = 16, 4.0


def _order(draws: Draws, *, times: float) -> Evidence:
    """`times` λ_max of LoRA against that of PiSSA, at N = 16d."""
    seeds = draws.seeds()
    shift, W = parts(seeds)
    X = gaussian(SAMPLES * D, D, seeds, "X")
    problem = LinearProblem.from_data(X, shift=shift, pretrained=W)
    found = {
        name: sharpness(problem, method, seeds)[0]
        for name, method in (
            ("LoRA", methods.lora(init_std=D**-0.5)),
            ("PiSSA", methods.pissa()),
            ("LoRA-One", methods.lora_one()),
        )
    }
    numbers = {f"median λ_max, {name}": float(values.median()) for name, values in found.items()}
    numbers["median ratio of PiSSA to LoRA"] = float((found["PiSSA"] / found["LoRA"]).median())
    return Evidence(
        (times * found["LoRA"]).numpy(), found["PiSSA"].numpy(), numbers=numbers
    )  # fmt: skip


SIZES = f"d = k = {D}, r = r* = {RANK}, κ = {KAPPA:g}, σ_i(W) = {TOP:g}/√i"
READ = "arXiv 2602.04998, abstract: λ_max explains the rates of methods; the law is"
POPULATION = "N = ∞, 𝒜 = I; σ₁(Δ) = 1 unless it is told"


def _claim(
    id: str, title: str, statement: str, wrong: str, method: Method, law: Law, other: Law,
    *, hypotheses: tuple[str, ...] = (), size: float = 1.0, uses: tuple[str, ...] = (),
) -> Claim:  # fmt: skip
    return Claim(
        id=id,
        title=title,
        reference=f"{READ} derivations, neighbours 11",
        statement=statement,
        hypotheses=(POPULATION, *hypotheses),
        how=f"The record of λ_max at the start over the law; {SIZES}"
        + (f", Δ times {size:g}; ± ‖Δ‖_op." if size < 1 else "; to the record's accuracy."),
        kind="identity",
        measure=lambda draws: _at_start(draws, method, law, size=size),
        mutant_statement=wrong,
        mutant=lambda draws: _at_start(draws, method, other, size=size),
        trials=8,
        smoke_trials=2,
        derivation="neighbours 11",
        uses=uses,
    )


CLAIMS = (
    _claim(
        "learning-rate-matters/curvature/pissa",
        "λ_max of PiSSA is set by W",
        "At the start λ_max = 2σ₁(W), up to ‖Δ‖_op.",
        "σ₁(W) + σ₂(W)",
        methods.pissa(),
        of_pissa,
        lambda start, shift, W: _value(W, 0) + _value(W, 1),
        hypotheses=("‖Δ‖ ≪ σ₁(W)",),
        size=SMALL,
    ),
    _claim(
        "learning-rate-matters/curvature/lora-one",
        "λ_max of LoRA-One is set by Δ",
        "At the start λ_max = 2σ₁(Δ).",
        "σ₁(Δ) + σ₂(Δ)",
        methods.lora_one(),
        of_lora_one,
        lambda start, shift, W: _value(shift.dense(), 0) + _value(shift.dense(), 1),
        hypotheses=("r ≥ r*",),
        uses=("lora-one/theorem-3.3", "lora-one/linear/one-step/spectral"),
    ),
    _claim(
        "learning-rate-matters/curvature/lora",
        "λ_max of LoRA is set by A₀ and Δ",
        "At the start λ_max = (a + √(a² + 4σ₁(Δ)²))/2, a = λ_max(A₀ᵀA₀).",
        "σ₁(Δ)² in place of 4σ₁(Δ)²",
        methods.lora(init_std=D**-0.5),
        of_lora,
        lambda start, shift, W: of_lora(start, Factors(shift.A / 2, shift.B), W),
        hypotheses=("A₀ with N(0, 1/d) entries, B₀ = 0",),
    ),
    Claim(
        id="learning-rate-matters/curvature/order",
        title="PiSSA starts where the loss is more curved than LoRA does",
        reference=(
            "arXiv 2602.04998, abstract and summaries, where the ratio is about ten; that is of "
            "their models: here σ₁(W) sets it"
        ),
        statement="λ_max of PiSSA is above that of LoRA in every draw.",
        hypotheses=("σ₁(W) ≫ σ₁(Δ), λ_max(A₀ᵀA₀)", "A₀ with N(0, 1/d) entries"),
        how=f"N = {SAMPLES}d; {SIZES}.",
        kind="bound",
        measure=lambda draws: _order(draws, times=1.0),
        mutant_statement=f"{TIMES:g} times that of LoRA, a little below the median of their ratio",
        mutant=lambda draws: _order(draws, times=TIMES),
        trials=16,
        smoke_trials=12,
        uses=("learning-rate-matters/curvature/pissa", "learning-rate-matters/curvature/lora"),
    ),
)
