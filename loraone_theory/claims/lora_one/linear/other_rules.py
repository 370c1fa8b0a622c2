"""3.7: what momentum, a larger step for B and the scale s make of local rates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.lora_one.linear.base import EPS, NEAR, TRUE_RANK, D, K, slow_mode
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method, lora, lora_plus, p_lora
from loraone_theory.methods.rules import RULES
from loraone_theory.predict import RuleName
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

RATIO, KAPPA = 16, 3.0
BETAS, SHARE, STEPS = (0.5, 0.9), 0.5, 12
RATIOS, RATE = (4.0, 16.0), 0.2
NEARLY = 0.99
# Rule -> method, and the power of s that its μ has.
SCALED: dict[RuleName, tuple[Callable[..., Method], int]] = {
    "gd": (lora, 1),
    "preconditioned": (p_lora, 2),
}
SCALES = (0.5, 4.0)


def _instances(draws: Draws) -> LinearProblem:
    return sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=RATIO * D, condition_number=KAPPA,
        seeds=draws.seeds(),
    )  # fmt: skip


def _moved(
    problem: LinearProblem,
    fastest: bool,
    ratio: float = 1.0,
    rule: RuleName = "gd",
    scale: float = 1.0,
) -> tuple[Factors, Factors]:
    """ratio·AᵀA = BBᵀ at scale·AB = Δ, and NEAR along an extreme mode from there."""
    A, B, v, w = slow_mode(problem, rule, fastest)
    A, B = A / ratio**0.25 / scale**0.5, B * ratio**0.25 / scale**0.5
    return Factors(A, B), Factors(A + NEAR / scale * v @ (torch.linalg.pinv(B).mT @ w).mT, B)


def _allowed(rate: Tensor | float, mu: Tensor) -> Tensor:
    """Of a step, relative to where it starts: second order, and rounding of E of size NEAR."""
    return (1 + rate * mu) ** 2 * (10 * NEAR * KAPPA + 10 * D * EPS / NEAR)


def _heavy_ball(draws: Draws, *, share: float) -> Evidence:
    """‖E_t‖/‖E₀‖ at each of STEPS steps along both extreme modes, against the recursion's."""
    problem = _instances(draws)
    ends = predict.tangent_extremes(problem, "gd")
    found, promised, allowed = [], [], []
    for beta in BETAS:
        rate = SHARE * 2 * (1 + beta) / float(ends[..., 1].max())
        for column, fastest in enumerate((False, True)):
            run = simulate(
                problem, lora().trained_by("momentum", beta=beta), rank=TRUE_RANK,
                learning_rate=rate, steps=STEPS, initial=_moved(problem, fastest)[1],
                record=("error",), reduce="never",
            )  # fmt: skip
            mu = ends[..., column]
            before, now = torch.ones_like(mu), 1 - rate * mu
            for t in range(1, STEPS + 1):
                found.append(run["error"][t] / run["error"][0])
                promised.append(now.abs())
                # Each of t steps adds its own, and is carried along t steps at most.
                allowed.append(t**2 * _allowed(rate, mu))
                before, now = now, (1 + share * beta - rate * mu) * now - share * beta * before
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=torch.cat(allowed).numpy()
    )


def _two_rates(draws: Draws, *, share: float) -> Evidence:
    """‖E₁‖/‖E₀‖ of LoRA+ along both extreme modes, against |1 − √λ·ημ|."""
    problem = _instances(draws)
    ends = predict.tangent_extremes(problem, "gd")
    found, promised, allowed = [], [], []
    for ratio in RATIOS:
        rate = RATE / ratio**0.5
        for column, fastest in enumerate((False, True)):
            _, moved = _moved(problem, fastest, ratio)
            run = simulate(
                problem, lora_plus(ratio=ratio), rank=TRUE_RANK, learning_rate=rate, steps=1,
                initial=moved, record=("error",), reduce="never",
            )  # fmt: skip
            # The run steps in place; problems without that step by the rule itself.
            rule = RULES["lora-plus"](rate, ratio=ratio)
            stepped, _ = rule.update(tuple(moved), problem.gradients(moved), rule.init(moved))
            E = problem.residual(Factors(*stepped))
            mu = ends[..., column]
            for after in (run["error"][1], torch.linalg.matrix_norm(E)):
                found.append(after / run["error"][0])
                promised.append((1 - (share * ratio) ** 0.5 * rate * mu).abs())
                allowed.append(_allowed(rate * ratio, mu))
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=torch.cat(allowed).numpy()
    )


def _scaled(draws: Draws, *, share: float) -> Evidence:
    """‖E₁‖/‖E₀‖ of W + sAB along both extreme modes, against the rates predicted at share·s."""
    problem = _instances(draws)
    found, promised, allowed = [], [], []
    for rule, (method, power) in SCALED.items():
        for scale in SCALES:
            for end, fastest in enumerate((False, True)):
                at, moved = _moved(problem, fastest, rule=rule, scale=scale)
                rate = RATE / scale**power
                run = simulate(
                    problem, method(scale=scale), rank=TRUE_RANK, learning_rate=rate, steps=1,
                    initial=moved, record=("error",), reduce="never",
                )  # fmt: skip
                mu = predict.rates(problem, at, rule=rule, scale=scale).extremes[..., end]
                plain = predict.tangent_extremes(problem, rule)[..., end]
                for law in (share**power * mu, (share * scale) ** power * plain):
                    found.append(run["error"][1] / run["error"][0])
                    promised.append((1 - rate * law).abs())
                    allowed.append(_allowed(rate, mu))
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=torch.cat(allowed).numpy()
    )


NEARBY = ("linear model", "r = r*", "AB near Δ")
SIZES = f"d = {D}, k = {K}, r* = {TRUE_RANK}, N = {RATIO}d, κ = {KAPPA:g}"
CLAIMS = (
    Claim(
        id="lora-one/linear/local-rates/heavy-ball",
        title="Momentum near a solution",
        reference="derivations 3.7; Polyak 1964",
        statement=(
            "Along mode i of gradient descent E_{t+1} = (1 + β − ημ_i)E_t − βE_{t−1}, from "
            "E₁ = (1 − ημ_i)E₀ where the memory is empty."
        ),
        hypotheses=NEARBY,
        how=(
            f"{STEPS} unreduced steps from {NEAR:g} along the extreme modes of the balanced "
            f"solution, β = {listed(BETAS)}, η at {SHARE:g} of the edge of stability; {SIZES}."
        ),
        kind="identity",
        measure=lambda draws: _heavy_ball(draws, share=1.0),
        mutant_statement=f"{NEARLY:g}β",
        mutant=lambda draws: _heavy_ball(draws, share=NEARLY),
        trials=40,
        smoke_trials=3,
        derivation="3.7",
        uses=("lora-one/linear/local-rates/gd",),
    ),
    Claim(
        id="lora-one/linear/local-rates/lora-plus",
        title="LoRA+ near a solution",
        reference="derivations 3.7",
        statement=(
            "With B's step λ times as large, at λAᵀA = BBᵀ, E contracts as by gradient descent "
            "with the step √λη at AᵀA = BBᵀ."
        ),
        hypotheses=(*NEARBY, "λAᵀA = BBᵀ, which the flow conserves"),
        how=(
            f"One unreduced step from {NEAR:g} along the extreme modes, λ = {listed(RATIOS)}, "
            f"√λη = {RATE:g}; {SIZES}."
        ),
        kind="identity",
        measure=lambda draws: _two_rates(draws, share=1.0),
        mutant_statement=f"{NEARLY:g}λ",
        mutant=lambda draws: _two_rates(draws, share=NEARLY),
        trials=100,
        smoke_trials=3,
        derivation="3.7",
        uses=("lora-one/linear/local-rates/gd",),
    ),
    Claim(
        id="lora-one/linear/local-rates/scale",
        title="What the scale s = α/r does to local rates",
        reference="derivations 3.7",
        statement=(
            "At sAB = Δ, balanced, the μ of gradient descent are s times those at s = 1, and "
            "those of preconditioned gradient descent s² times."
        ),
        hypotheses=NEARBY,
        how=(
            f"One unreduced step from {NEAR:g} along the extreme modes, s = {listed(SCALES)}, "
            f"ηs or ηs² = {RATE:g}, against that and against `predict.rates`; {SIZES}."
        ),
        kind="identity",
        measure=lambda draws: _scaled(draws, share=1.0),
        mutant_statement=f"{NEARLY:g}s",
        mutant=lambda draws: _scaled(draws, share=NEARLY),
        trials=40,
        smoke_trials=3,
        derivation="3.7",
        uses=("lora-one/linear/local-rates", "lora-one/linear/local-rates/gd"),
    ),
)
