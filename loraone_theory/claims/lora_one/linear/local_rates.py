"""3.7: the factor by which the error contracts near a solution, and its independence of κ."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.lora_one.linear.base import EPS, NEAR, TRUE_RANK, D, K, slow_mode
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.predict import RuleName
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

RATIO = 16
# A width at which the r*(d + r*) modes are beyond predict.modes.INVERSE_SIZE.
LARGE, FEW = 210, 2
CONDITION_NUMBERS, LEARNING_RATES = (1.0, 10.0), (0.2, 0.5, 0.9)
# Of the claim on κ: all against the first.
SPREAD, SPREAD_RATE = (1.0, 3.0, 10.0, 30.0), 0.2
# Of the tails: d, and the ‖E_t‖_F between which they are measured.
TAIL_WIDTH, LOW, HIGH = 60, 1e-12, 1e-6
MORE, LESS = 1.2, 0.85
# Of the mutants of what is exact to first order.
NEARLY = 0.99


def _instances(
    draws: Draws, kappa: float, width: int = D, count: int | None = None
) -> LinearProblem:
    return sample_linear(
        d=width,
        k=K,
        true_rank=TRUE_RANK,
        samples=RATIO * width,
        condition_number=kappa,
        seeds=draws.seeds(count),
    )


def _growth(problem: LinearProblem, rule: RuleName, rate: float, fastest: bool) -> Tensor:
    """‖E₁‖/‖E₀‖ of one step from `NEAR` along an extreme mode."""
    A, B, v, w = slow_mode(problem, rule, fastest)
    # E = A'B − Δ is exactly NEAR·v wᵀ with w in the row space of B.
    moved = Factors(A + NEAR * v @ (torch.linalg.pinv(B).mT @ w).mT, B)
    run = simulate(
        problem, "p-lora" if rule == "preconditioned" else "lora", rank=TRUE_RANK,
        learning_rate=rate, steps=1, initial=moved, record=("error",), reduce="never",
    )  # fmt: skip
    return run["error"][1] / run["error"][0]


def _contraction(draws: Draws, rule: RuleName, *, share: float) -> Evidence:
    """‖E₁‖/‖E₀‖ of one step along the slowest and the fastest mode, over κ, η and d.

    Promised is the rate at `share`·η.
    """
    found, promised, allowed, numbers = [], [], [], {}
    settings = [(kappa, D, LEARNING_RATES) for kappa in CONDITION_NUMBERS]
    for kappa, width, rates in (*settings, (CONDITION_NUMBERS[-1], LARGE, LEARNING_RATES[:1])):
        problem = _instances(draws, kappa, width, FEW if width == LARGE else None)
        for rate in rates:
            growth = [_growth(problem, rule, rate, fastest) for fastest in (False, True)]
            found.append(torch.stack(growth).amax(0))
            promised.append(predict.local_rate(problem, rule, learning_rate=share * rate))
            mu = predict.tangent_extremes(problem, rule)[..., 1]
            # Second order: η²‖Σ̂E‖²/λ* and the change of P_A, of relative size NEAR κ each;
            # rounding: E holds NEAR to eps, amplified by the spread μ of the modes.
            allowed.append((1 + rate * mu) ** 2 * (10 * NEAR * kappa + 10 * width * EPS / NEAR))
            if width == D:
                name = f"κ = {kappa:g}, η = {rate}"
                numbers[f"mean measured rate, {name}"] = float(found[-1].mean())
                numbers[f"mean promised, {name}"] = float(promised[-1].mean())
    return Evidence(
        torch.cat(found).numpy(),
        torch.cat(promised).numpy(),
        tolerance=torch.cat(allowed).numpy(),
        numbers=numbers,
    )


def _tail(draws: Draws, rule: RuleName, kappa: float, rate: float, *, wrong: bool) -> Evidence:
    """Tail slope of ‖E_t‖ from Spectral-init against the predicted rate.

    `wrong` promises the rate at a larger κ (gradient descent) or a smaller η (preconditioned).
    """
    problem = _instances(draws, kappa, width=TAIL_WIDTH)
    predicted = predict.local_rate(problem, rule, learning_rate=rate)
    slowest = float(predicted.max())
    steps = int(1.2 * math.log(LOW * 1e-2) / math.log(slowest)) + 50
    run = simulate(
        problem,
        "lora-one" if rule == "gd" else "lora-one-preconditioned",
        rank=TRUE_RANK,
        learning_rate=rate,
        steps=steps,
        record=("error",),
        reduce="never",
    )
    errors = run["error"].numpy()
    measured = stats.decay_rate(errors, low=LOW, high=HIGH)
    if wrong and rule == "gd":
        predicted = predict.local_rate(
            _instances(draws, MORE * kappa, width=TAIL_WIDTH), rule, learning_rate=rate
        )
    elif wrong:
        predicted = predict.local_rate(problem, rule, learning_rate=LESS * rate)
    start = float(np.argmax(errors < HIGH, axis=0).min())
    # The spectrum of Σ̂ ends like a square root, so ‖E_t‖² ~ ρ^{2t}t^{−3/2} and the slope of
    # log‖E_t‖ is off by 3/(4t), at most that of the window's first step.
    allowance = 0.75 / start
    return Evidence(
        lhs=measured,
        rhs=predicted.numpy(),
        tolerance=allowance,
        numbers={
            "mean measured rate": float(measured.mean()),
            "mean predicted rate": float(predicted.mean()),
            "allowance 3/(4t) of a finite window": allowance,
        },
    )


def _spread(draws: Draws, rule: RuleName) -> Evidence:
    """One-step contraction along the slowest mode, at each κ against that at the first."""
    found, numbers = [], {}
    for kappa in SPREAD:
        found.append(_growth(_instances(draws, kappa), rule, SPREAD_RATE, False))
        numbers[f"(1 − rate)/η at κ = {kappa:g}"] = float((1 - found[-1]).mean()) / SPREAD_RATE
    same = torch.stack(found[1:])
    kappas = np.repeat(SPREAD[1:], same.shape[1])
    return Evidence(
        lhs=same.flatten().numpy(),
        rhs=found[0].expand_as(same).flatten().numpy(),
        tolerance=2 * (10 * NEAR * kappas + 10 * D * EPS / NEAR),
        numbers=numbers,
    )


_HYPOTHESES = ("linear model", "r = r*", "AB near Δ")
_RULE = {"preconditioned": "preconditioned gradient descent", "gd": "gradient descent"}
_ONE_STEP: dict[str, str] = {
    "preconditioned": "lora-one/linear/one-step/preconditioned",
    "gd": "lora-one/linear/one-step",
}
_OPERATOR = {
    "preconditioned": "E ↦ Σ̂E P_B + P_AΣ̂E",
    "gd": "E ↦ Σ̂E BᵀB + AAᵀΣ̂E",
}


def _mode_claim(id: str, alias: str, rule: RuleName, title: str) -> Claim:
    return Claim(
        id=id,
        aliases=(alias,),
        title=title,
        reference="derivations 3.7; App. C.2, C.3",
        statement=(
            f"Near AB = Δ the residual contracts by max |1 − ημ| over the eigenvalues μ of "
            f"{_OPERATOR[rule]} on {{AX + YB}}; above 1 the solution is unstable."
        ),
        hypotheses=_HYPOTHESES,
        how=(
            f"One unreduced step from {NEAR:g} along the extreme modes; d = {D}, k = {K}, "
            f"r* = {TRUE_RANK}, N = {RATIO}d, κ = {listed(CONDITION_NUMBERS)}, "
            f"η = {listed(LEARNING_RATES)}; and for {FEW} draws at d = {LARGE}, the largest κ and "
            "the first η, where the prediction inverts the modes in place of listing them."
        ),
        kind="identity",
        measure=lambda draws: _contraction(draws, rule, share=1.0),
        mutant_statement=f"the rate at {NEARLY:g}η",
        mutant=lambda draws: _contraction(draws, rule, share=NEARLY),
        trials=100,
        smoke_trials=5,
        derivation="3.7",
        uses=(_ONE_STEP[rule], "lora-one/linear/reduction"),
    )


def _tail_claim(
    id: str, alias: str, rule: RuleName, kappa: float, rate: float, broken: str, *uses: str
) -> Claim:
    return Claim(
        id=id,
        aliases=(alias,),
        title=f"Tail slope of a run from Spectral-init, {_RULE[rule]}, κ = {kappa:g}",
        reference="derivations 3.7; App. C.2, C.3",
        statement="‖E_{t+1}‖_F/‖E_t‖_F → max |1 − ημ| as t → ∞.",
        hypotheses=(*_HYPOTHESES, "Spectral-init"),
        how=(
            f"‖E_t‖_F from {HIGH:g} to {LOW:g}, unreduced; d = {TAIL_WIDTH}, k = {K}, "
            f"N = {RATIO}d, η = {rate:g}."
        ),
        kind="value",
        measure=lambda draws: _tail(draws, rule, kappa, rate, wrong=False),
        mutant_statement=broken,
        mutant=lambda draws: _tail(draws, rule, kappa, rate, wrong=True),
        trials=24,
        smoke_trials=12,
        derivation="3.7",
        uses=(*uses, "lora-one/linear/sample-size"),
    )


CLAIMS = (
    _mode_claim(
        "lora-one/linear/local-rates",
        "3.7",
        "preconditioned",
        "Local rate of preconditioned gradient descent",
    ),
    _mode_claim("lora-one/linear/local-rates/gd", "3.7/GD", "gd", "Local rate of gradient descent"),
    Claim(
        id="lora-one/linear/local-rates/kappa",
        aliases=("3.7/kappa",),
        title="Preconditioning takes κ out of the rate",
        reference="derivations 3.7; App. C.3",
        statement="The local rate of preconditioned GD does not depend on S.",
        hypotheses=_HYPOTHESES,
        how=(
            f"The slowest mode at κ = {listed(SPREAD[1:])} against κ = {SPREAD[0]:g}, "
            f"η = {SPREAD_RATE:g}; sizes as for lora-one/linear/local-rates."
        ),
        kind="identity",
        measure=lambda draws: _spread(draws, "preconditioned"),
        mutant_statement="the same of gradient descent",
        mutant=lambda draws: _spread(draws, "gd"),
        trials=100,
        smoke_trials=5,
        derivation="3.7",
        uses=("lora-one/linear/local-rates",),
    ),
    _tail_claim(
        "lora-one/linear/local-rates/tail",
        "3.7/tail",
        "preconditioned",
        10.0,
        0.2,
        f"the rate at {LESS:g}η",
        "lora-one/linear/local-rates",
    ),
    _tail_claim(
        "lora-one/linear/local-rates/tail-gd",
        "3.7/tail GD",
        "gd",
        3.0,
        0.25,
        f"the rate at {MORE:g}κ",
        "lora-one/linear/local-rates/gd",
        "lora-one/linear/one-step/balance",
        "lora-one/linear/one-step/spectral",
    ),
)
