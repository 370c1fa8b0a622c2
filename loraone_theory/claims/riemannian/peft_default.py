"""A constant regulariser, 0.01 in PEFT, brings κ back; one on the factors' scale does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, listed
from loraone_theory.claims.population import (
    Population,
    crossing,
    exponent,
    exponents,
    first_below,
    gaussian,
    near,
    population,
    spectrum,
)
from loraone_theory.core import tall
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method, p_lora
from loraone_theory.methods.rules import Rule

D, RANK, ETA, REG, MORE = 15, 4, 0.3, 1e-2, 1.1
KAPPAS, STEEP, SLOPE = (1.0, 10.0, 100.0, 1000.0), (100.0, 1000.0), 0.1
NEAR, START, LOW, HIGH = 1e-9, 0.1, 1e-9, 1e-6
STEPS = 700
UNBALANCED, LONGER = (10.0, 20.0), 1500
# HIGH bends a rate by its own size; what is left of the next mode at HIGH, by a few thousandths.
ALLOWED = 0.01
# Counted to FAR from START, where second-order terms have their share in the first steps.
FAR, MOST, MARGIN = 1e-10, 1500, 0.02
# Large enough that at HIGH the other modes have fallen to a millionth of the slowest.
SHARE = 2.0


def _errors(seeds: tuple[int, ...], kappa: float, method: Method, reg: float) -> np.ndarray:
    """‖E_t‖_F/σ_r, with σ₁ = 1 and a start at 0.1σ_r."""
    of = population(D, D, spectrum(kappa, RANK) / kappa, seeds)
    # In units in which σ_r = 1 distances scale as σ_r, as products do.
    run = simulate(
        of.problem, method, rank=RANK, learning_rate=ETA, damping=reg, steps=STEPS,
        initial=near(of, START / kappa, seeds), record=("error",),
    )  # fmt: skip
    return run["error"].numpy() * kappa


def _ends_at(draws: Draws, method: Method, reg: float, law: Callable[[float], float]) -> Evidence:
    """ln of the factor a step over that of the law at each κ."""
    found = []
    for block, kappa in enumerate(STEEP):
        errors = _errors(draws.seeds(block=block), kappa, method, reg)
        rate = stats.decay_rate(errors, low=LOW, high=HIGH)
        found.append(np.log(rate) / np.log(law(kappa)))
    return Evidence(np.concatenate(found), 1.0, tolerance=ALLOWED)


def _law(draws: Draws, *, factor: float) -> Evidence:
    """A constant regulariser."""
    return _ends_at(draws, p_lora(), REG, lambda kappa: 1 - ETA / (1 + factor * REG * kappa))


def _relative(draws: Draws, *, factor: float) -> Evidence:
    """A share of the factors' own λ_min."""
    method = p_lora().trained_by("preconditioned", relative=SHARE)
    return _ends_at(draws, method, 0.0, lambda kappa: 1 - ETA / (1 + factor * SHARE))


def _predicted(of: Population, start: Factors, reg: float, level: float) -> np.ndarray:
    """Steps until what lies off the signal, each part at its own rate, is at `level`."""
    E = start.dense() - (of.U * of.S[:, None, :]) @ of.V.mT
    right, left = E @ of.V, of.U.mT @ E
    columns = right - of.U @ (of.U.mT @ right)
    rows = left - (left @ of.V) @ of.V.mT
    parts = columns.square().sum(-2) + rows.square().sum(-1)
    rates = 1 - ETA * of.S / (of.S + reg)
    steps = torch.arange(MOST + 1, dtype=torch.float64)[:, None, None]
    return first_below((parts * rates ** (2 * steps)).sum(-1).sqrt(), level)


def _counted(draws: Draws, *, factor: float) -> Evidence:
    """Steps to 1e-10σ_r without a regulariser and with it, and those of the law."""
    found, promised, numbers = [], [], {}
    for kappa in KAPPAS[::3] if draws.smoke else KAPPAS:
        seeds = draws.seeds(block=f"κ = {kappa:g}")
        of = population(D, D, spectrum(kappa, RANK) / kappa, seeds)
        start = near(of, START / kappa, seeds)
        for reg in (0.0, REG):
            law = _predicted(of, start, factor * reg, FAR / kappa)
            run = simulate(
                of.problem, p_lora(), rank=RANK, learning_rate=ETA, damping=reg,
                steps=int(MORE * law.max()), initial=start, record=("error",),
            )  # fmt: skip
            found.append(first_below(run["error"], FAR / kappa))
            promised.append(law)
            numbers[f"mean steps at reg = {reg:g}, κ = {kappa:g}"] = float(found[-1].mean())
    laws = np.concatenate(promised)
    return Evidence(np.concatenate(found), laws, tolerance=1 + MARGIN * laws, numbers=numbers)


def _growth(draws: Draws, method: Method, reg: float) -> Evidence:
    """Exponent in κ of the steps to 1e-9σ_r."""
    kappas = KAPPAS[::3] if draws.smoke else KAPPAS
    taken = []
    for kappa in kappas:
        errors = _errors(draws.seeds(), kappa, method, reg)
        taken.append(crossing(errors, NEAR))
    steps = np.array(taken)
    pairs = zip(kappas, steps, strict=True)
    means = {f"mean steps at κ = {k:g}": float(row.mean()) for k, row in pairs}
    return exponent(exponents(kappas, steps), 0.0, SLOPE, **means)


def _from_lora_init(draws: Draws, *, factor: float) -> Evidence:
    """The same from A₀ with N(0, 1/d) entries and B₀ = 0, λ_min(BBᵀ) at the end in place of σ_r."""
    found, inside, numbers = [], [], {}
    for kappa in UNBALANCED:
        seeds = draws.seeds(block=f"κ = {kappa:g}")
        of = population(D, D, spectrum(kappa, RANK) / kappa, seeds)
        A = gaussian(D, RANK, seeds, "A0") / D**0.5
        run = simulate(
            of.problem, p_lora(), rank=RANK, learning_rate=ETA, damping=REG, steps=LONGER,
            initial=Factors(A, 0 * A.mT), record=("error",),
        )  # fmt: skip
        errors = run["error"].numpy() * kappa
        least = torch.linalg.eigvalsh(run.final.B @ run.final.B.mT)[..., 0].numpy()
        rate = stats.decay_rate(errors, low=LOW, high=HIGH)
        found.append(np.log(rate) / np.log(1 - ETA * least / (least + factor * REG)))
        inside.append((errors <= LOW).any(0))
        numbers[f"mean of λ_min(BBᵀ)/σ_r² at κ = {kappa:g}"] = float(least.mean() * kappa**2)
        numbers[f"median steps to {NEAR:g}σ_r at κ = {kappa:g}"] = float(
            np.median(first_below(run["error"], NEAR / kappa))
        )
    return Evidence(np.concatenate(found), 1.0, np.concatenate(inside), ALLOWED, numbers=numbers)


def by_the_trace(learning_rate: Scalar, damping: Scalar = 0.0, share: float = REG) -> Rule:
    """ScaledGD with share·tr(AᵀA)/r and share·tr(BBᵀ)/r added."""

    def update(params: Params, gradients: Params, state: None) -> tuple[Params, None]:
        (A, B), (grad_A, grad_B) = params, gradients
        left, right = (
            inverse_psd(M, share * M.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]).matrix
            for M in (tall.inner(A, A), B @ B.mT)
        )
        return (A - learning_rate * grad_A @ right, B - learning_rate * left @ grad_B), state

    return Rule(lambda params: None, update, equivariant=True, pair=True)


HYPOTHESES = ("𝒜 = I", "r = r*", f"balanced start within {START:g}σ_r", "σ₁ = 1")
SIZES = f"d = k = {D}, r = {RANK}, η = {ETA:g}"
PEFT = "PEFT, create_riemannian_optimizer, default of reg (its source read)"
CLAIMS = (
    Claim(
        id="riemannian/regulariser",
        title="What a regulariser does to the rate",
        reference=f"derivations, neighbours 4; {PEFT}",
        statement="With BBᵀ + reg·I and AᵀA + reg·I the error ends at 1 − ησ_r/(σ_r + reg) a step.",
        hypotheses=HYPOTHESES,
        how=(
            f"ln of the factor between {HIGH:g} and {LOW:g} of σ_r over that of the law; "
            f"reg = {REG:g}, κ = {listed(STEEP)}; {SIZES}; ± {ALLOWED:g}."
        ),
        kind="identity",
        measure=lambda draws: _law(draws, factor=1.0),
        mutant_statement=f"{MORE:g}·reg in the law",
        mutant=lambda draws: _law(draws, factor=MORE),
        trials=10,
        smoke_trials=2,
        derivation="neighbours 4",
        uses=("scaled-gd/factorisation/edge",),
    ),
    Claim(
        id="riemannian/regulariser/steps",
        title="How many steps it costs, counted",
        reference=f"derivations, neighbours 4; {PEFT}",
        statement=(
            "Parts of the error off the signal fall by 1 − ησ_i/(σ_i + reg) a step each, and "
            f"{FAR:g}σ_r is reached when these alone have come to it."
        ),
        hypotheses=HYPOTHESES,
        how=(
            f"Steps to ‖E‖_F ≤ {FAR:g}σ_r without and with reg = {REG:g}, κ = {listed(KAPPAS)}; "
            f"{SIZES}; ± one step and {MARGIN:.0%}."
        ),
        kind="identity",
        measure=lambda draws: _counted(draws, factor=1.0),
        mutant_statement=f"{MORE:g}·reg in the law",
        mutant=lambda draws: _counted(draws, factor=MORE),
        trials=5,
        smoke_trials=2,
        cap=5,
        derivation="neighbours 4",
        uses=("riemannian/regulariser",),
    ),
    Claim(
        id="riemannian/regulariser/lora-init",
        title="From LoRA's start it competes with σ_r²",
        reference=f"derivations, neighbours 4; {PEFT}",
        statement=(
            "From B₀ = 0 and A₀ of order one the error ends at 1 − ηλ/(λ + reg) a step, "
            "λ = λ_min(BBᵀ) at the end, which is of order σ_r²."
        ),
        hypotheses=(
            "𝒜 = I",
            "r = r*",
            "A₀ with N(0, 1/d) entries, B₀ = 0",
            "σ₁ = 1",
            f"the error is at {LOW:g}σ_r within {LONGER} steps",
        ),
        how=(
            f"ln of the factor between {HIGH:g} and {LOW:g} of σ_r over that of the law; "
            f"reg = {REG:g}, κ = {listed(UNBALANCED)}; {SIZES}; ± {ALLOWED:g}."
        ),
        kind="identity",
        measure=lambda draws: _from_lora_init(draws, factor=1.0),
        mutant_statement=f"{MORE:g}·reg in the law",
        mutant=lambda draws: _from_lora_init(draws, factor=MORE),
        trials=10,
        smoke_trials=4,
        derivation="neighbours 4",
        uses=("riemannian/regulariser",),
    ),
    Claim(
        id="riemannian/regulariser/peft-default",
        title="PEFT's default keeps the rate free of κ",
        reference=f"arXiv 2402.02347, a rate without κ, at {PEFT}",
        statement=f"At reg = {REG:g} the steps do not grow with κ: exponent 0.",
        hypotheses=HYPOTHESES,
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r at κ = {listed(KAPPAS)}, at most {STEPS}; {SIZES}; "
            f"exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _growth(draws, p_lora(), REG),
        mutant_statement=f"reg = {MORE * REG:g}",
        mutant=lambda draws: _growth(draws, p_lora(), MORE * REG),
        trials=6,
        smoke_trials=4,
        expected=Finding.VIOLATED,
        explanation=(
            "The rate is 1 − ησ_r/(σ_r + reg): free of κ only while σ_r is well above reg, that is "
            "κ ≪ σ₁/reg. The theorem has no regulariser and is not touched."
        ),
        derivation="neighbours 4",
        uses=("riemannian/regulariser",),
    ),
    Claim(
        id="riemannian/regulariser/relative/rate",
        title="The rate with a regulariser on the factors' scale",
        reference="derivations, neighbours 4",
        statement=(
            "With c·λ_min(BBᵀ) and c·λ_min(AᵀA) added the error ends at 1 − η/(1 + c) a step, "
            "whatever κ and the size of Δ are."
        ),
        hypotheses=HYPOTHESES,
        how=(
            f"ln of the factor between {HIGH:g} and {LOW:g} of σ_r over that of the law; "
            f"c = {SHARE:g}, κ = {listed(STEEP)}; {SIZES}; ± {ALLOWED:g}."
        ),
        kind="identity",
        measure=lambda draws: _relative(draws, factor=1.0),
        mutant_statement=f"{MORE:g}·c in the law",
        mutant=lambda draws: _relative(draws, factor=MORE),
        trials=10,
        smoke_trials=2,
        derivation="neighbours 4",
        uses=("riemannian/regulariser",),
    ),
    Claim(
        id="riemannian/regulariser/relative",
        title="A regulariser on the factors' scale keeps the rate free of κ",
        reference="derivations, neighbours 4",
        statement="With reg·λ_min(BBᵀ) and reg·λ_min(AᵀA) added the steps do not grow with κ.",
        hypotheses=HYPOTHESES,
        how=(
            f"Steps to ‖E‖_F ≤ {NEAR:g}σ_r at κ = {listed(KAPPAS)}, reg = {REG:g}; {SIZES}; "
            f"exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _growth(
            draws, p_lora().trained_by("preconditioned", relative=REG), 0.0
        ),
        mutant_statement="reg·tr(·)/r in place of reg·λ_min(·)",
        mutant=lambda draws: _growth(draws, p_lora().with_rule(by_the_trace, name="trace"), 0.0),
        trials=6,
        smoke_trials=4,
        derivation="neighbours 4",
        uses=("riemannian/regulariser",),
    ),
)
