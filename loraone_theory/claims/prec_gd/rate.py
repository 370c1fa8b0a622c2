"""PrecGD at 𝒜 = I: linear beyond the true rank, at a rate without κ, set by the damping."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import (
    Population,
    exponent,
    exponents,
    first_below,
    gaussian,
    spectrum,
    started,
    symmetric_population,
)
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import Method, p_lora
from loraone_theory.methods.rules import Rule
from loraone_theory.methods.symmetric import symmetric_preconditioned

N, TRUE_RANK, RANK = 20, 2, 4
ETA, START, NEAR = 0.5, 0.1, 1e-10
KAPPAS = (1.0, 10.0, 100.0, 1000.0)
SLOPE = 0.1


def _drawn(seeds: tuple[int, ...], kappa: float, rank: int) -> tuple[Population, Tensor]:
    """σ_r = 1, and a start at ‖X₀ − (US^{1/2}, 0)‖_F = 0.1."""
    of = symmetric_population(N, spectrum(kappa, TRUE_RANK), seeds)
    X = torch.zeros(len(seeds), N, rank, dtype=torch.float64)
    X[..., :TRUE_RANK] = of.balanced.A
    move = gaussian(N, rank, seeds, "X0")
    return of, X + START * move / torch.linalg.matrix_norm(move)[:, None, None]


def powered(learning_rate: Scalar, damping: Scalar = 0.0, power: float = 1.0) -> Rule:
    """X ← X − η∇(XᵀX + ρᵖI)⁻¹ with ρ the size ‖E P_X‖_F of the error that PrecGD takes at p = 1."""

    def update(params: Params, gradients: Params, state: None) -> tuple[Params, None]:
        (X,), (grad,) = params, gradients
        values, Q = torch.linalg.eigh(X.mT @ X)
        values, projected = values[..., None, :], grad @ Q
        rho = (projected.square() / values).sum((-2, -1), keepdim=True).sqrt()
        return (X - learning_rate * (projected / (values + rho**power)) @ Q.mT,), state

    return Rule(lambda params: None, update, equivariant=True)


def _steps(of: Population, start: Tensor, method: Method, steps: int) -> np.ndarray:
    run = simulate(
        of.problem, started(method, start), rank=start.shape[-1], learning_rate=ETA, steps=steps,
        record=("error",), until=Until("error", NEAR),
    )  # fmt: skip
    return first_below(run["error"], NEAR)


def _in_kappa(draws: Draws, method: Method) -> Evidence:
    taken = []
    for kappa in KAPPAS:
        of, start = _drawn(draws.seeds(), kappa, RANK)
        taken.append(_steps(of, start, method, 250))
    steps = np.array(taken)
    means = {
        f"mean steps at κ = {k:g}": float(row.mean()) for k, row in zip(KAPPAS, steps, strict=True)
    }
    return exponent(exponents(KAPPAS, steps), 0.0, SLOPE, **means)


SIZES, RANKS = (1.0, 3.0), (3, 4, 8)
LOW, HIGH, ALLOWED = 1e-11, 1e-6, 0.02
DAMPED = (10.0, 30.0)
ONE, ROOT, POWER, EXPONENT = 1.0, 0.5, 0.6, 0.8
# (c, r − r*) -> the factor a step.
Law = Callable[[float, int], float]
# Of a pair: by HIGH its surplus is even, or the imbalance (1 − η)⁻ᵗ, to less than a thousandth.
UNBALANCED, CLOSE = 1.5, 0.004


def _of_surplus(c: float, surplus: int, *, power: float = ROOT, sides: float = 1.0) -> float:
    """(1 − η/(1 + c·√sides·(r − r*)^power))²; a pair sees the error from both of its sides."""
    return (1 - ETA / (1 + c * sides**0.5 * surplus**power)) ** 2


def _surplus(draws: Draws, law: Law, pair: float = 0.0) -> Evidence:
    """ln(rate)/ln(law(c, r − r*)), averaged over c and r.

    By X itself, or from A = pair·X and B = Xᵀ/pair where `pair` is given.
    """
    found = []
    every = [(c, r) for c in SIZES for r in RANKS]
    for block, (c, rank) in enumerate(every[1:3] if draws.smoke else every):
        seeds = draws.seeds(block=block)
        of, start = _drawn(seeds, 10.0, rank)
        method, initial = started(symmetric_preconditioned(adaptive=c), start), None
        if pair:
            method = p_lora().trained_by("preconditioned", adaptive=c)
            initial = Factors(pair * start, start.mT / pair)
        run = simulate(
            of.problem, method, rank=rank, learning_rate=ETA, steps=450, record=("error",),
            until=Until("error", LOW), initial=initial,
        )  # fmt: skip
        rate = stats.decay_rate(run["error"].numpy(), low=LOW, high=HIGH)
        found.append(np.log(rate) / np.log(law(c, rank - TRUE_RANK)))
    ratios = np.array(found).mean(0)
    return Evidence(ratios, 1.0, tolerance=CLOSE if pair else ALLOWED)


def _window(draws: Draws, *, promised: float) -> Evidence:
    """Exponent in c of the steps, λ = c·ρ."""
    of, start = _drawn(draws.seeds(), 10.0, RANK)
    methods = [symmetric_preconditioned(adaptive=c) for c in DAMPED]
    taken = [_steps(of, start, m, int(60 * c)) for m, c in zip(methods, DAMPED, strict=True)]
    steps = np.array(taken)
    means = {
        f"mean steps at c = {c:g}": float(row.mean()) for c, row in zip(DAMPED, steps, strict=True)
    }
    return exponent(exponents(DAMPED, steps), promised, SLOPE, **means)


DEFINED = (
    "𝒜 = I, symmetric, r ≥ r*",
    "λ_t = c‖E P_X‖_F with P_X on the columns of X: between constants times ‖E‖_F near M, since "
    "‖E‖² ≤ 2‖EP_X‖² + ‖P_X^⊥ M P_X^⊥‖², and the last part is of second order",
    f"‖X₀ − US^{{1/2}}‖_F = {START:g}√σ_r",
)
UNREAD = "Zhang, Fattahi, Zhang, arXiv 2504.09708, abstract; constants not read"
SIZE = f"n = {N}, r* = {TRUE_RANK}, η = {ETA:g}"
CLAIMS = (
    Claim(
        id="prec-gd/rate",
        title="Beyond the true rank, a linear rate without κ",
        reference=UNREAD,
        statement="With λ_t of the size of ‖E‖_F the steps do not grow with κ: exponent 0.",
        hypotheses=DEFINED,
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r at κ = {listed(KAPPAS)}, r = {RANK}, c = {ONE:g}; "
            f"{SIZE}; exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _in_kappa(draws, symmetric_preconditioned(adaptive=ONE)),
        mutant_statement="λ_t = √ρ in place of ρ = ‖E P_X‖_F",
        mutant=lambda draws: _in_kappa(
            draws, symmetric_preconditioned().with_rule(powered, name="powered", power=ROOT)
        ),
        trials=8,
        smoke_trials=4,
        explanation=(
            "Too large a damping is what breaks it. λ_t = ρ², below the window, still converges "
            "here at every κ, and so does λ_t = ‖E‖_F² with a plain inverse, though the Gram "
            "matrix is then singular to rounding before the end. That depends on units: with "
            "σ₁ = 1 in place of σ_r = 1 rounding stops those runs, see the derivation."
        ),
        uses=("prec-gd/rate/surplus",),
    ),
    Claim(
        id="prec-gd/rate/surplus",
        title="The rate is that of the directions in surplus",
        reference="derivations, neighbours 2",
        statement=(
            "For r > r* the error ends at a factor of (1 − η/(1 + c√(r − r*)))² a step, where that "
            "exceeds 1 − η."
        ),
        hypotheses=DEFINED,
        how=(
            f"ln of the factor between ‖E‖_F = {HIGH:g} and {LOW:g} over that of the law, averaged "
            f"over c = {listed(SIZES)} and r = {listed(RANKS)}; {SIZE}; ± {ALLOWED:g}."
        ),
        kind="value",
        measure=lambda draws: _surplus(draws, _of_surplus),
        mutant_statement=f"(r − r*)^{POWER:g} in place of √(r − r*)",
        mutant=lambda draws: _surplus(draws, functools.partial(_of_surplus, power=POWER)),
        trials=8,
        smoke_trials=4,
        derivation="neighbours 2",
    ),
    Claim(
        id="prec-gd/rate/surplus/pair",
        title="A pair sees that error twice",
        reference="derivations, neighbours 2",
        statement=(
            "A pair A, B damped by λ_t = c√(‖E P_B‖² + ‖P_A E‖²) ends at a factor of "
            "(1 − η/(1 + c√(2(r − r*))))² a step from A₀ = B₀ᵀ, where that exceeds 1 − η."
        ),
        hypotheses=(
            "𝒜 = I, M symmetric, r > r*",
            f"A₀ = B₀ᵀ = X₀, ‖X₀ − US^{{1/2}}‖_F = {START:g}√σ_r",
        ),
        how=(
            f"ln of the factor between ‖E‖_F = {HIGH:g} and {LOW:g} over that of the law, averaged "
            f"over c = {listed(SIZES)} and r = {listed(RANKS)}; {SIZE}; ± {CLOSE:g}."
        ),
        kind="value",
        measure=lambda draws: _surplus(draws, functools.partial(_of_surplus, sides=2.0), 1.0),
        mutant_statement="c√(r − r*), the law of a symmetric X",
        mutant=lambda draws: _surplus(draws, _of_surplus, 1.0),
        trials=8,
        smoke_trials=4,
        derivation="neighbours 2",
        uses=("prec-gd/rate/surplus",),
    ),
    Claim(
        id="prec-gd/rate/surplus/unbalanced",
        title="An unbalanced pair does not pay for it",
        reference="derivations, neighbours 2",
        statement=(
            "From A₀ = sX₀, B₀ = X₀ᵀ/s with s ≠ 1 the same damping ends at 1 − η a step, whatever "
            "c and r are."
        ),
        hypotheses=("𝒜 = I, M symmetric, r > r*", f"‖X₀ − US^{{1/2}}‖_F = {START:g}√σ_r"),
        how=(
            f"s = {UNBALANCED:g}; ln of the factor between ‖E‖_F = {HIGH:g} and {LOW:g} over that "
            f"of the law, averaged over c = {listed(SIZES)} and r = {listed(RANKS)}; {SIZE}; "
            f"± {CLOSE:g}."
        ),
        kind="value",
        measure=lambda draws: _surplus(draws, lambda c, surplus: 1 - ETA, UNBALANCED),
        mutant_statement="s = 1",
        mutant=lambda draws: _surplus(draws, lambda c, surplus: 1 - ETA, 1.0),
        trials=8,
        smoke_trials=4,
        explanation=(
            "Balance is unstable there: where A is the larger factor, B is the one that shrinks "
            "faster, λ_t falls with their product, and in the end A stands still."
        ),
        derivation="neighbours 2",
        uses=("prec-gd/rate/surplus/pair",),
    ),
    Claim(
        id="prec-gd/window",
        title="Steps grow with the upper end of the window",
        reference=f"{UNREAD}; the exponent is ours, derivations, neighbours 2",
        statement="For large c the steps are Θ(c), λ_t = cρ: exponent 1.",
        hypotheses=DEFINED,
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r at c = {listed(DAMPED)}, r = {RANK}; {SIZE}; "
            f"exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _window(draws, promised=1.0),
        mutant_statement=f"exponent {EXPONENT:g}",
        mutant=lambda draws: _window(draws, promised=EXPONENT),
        trials=8,
        smoke_trials=4,
        derivation="neighbours 2",
        uses=("prec-gd/rate/surplus",),
    ),
)
