"""T3.2 and T3.3 for sub-Gaussian inputs that are not Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.lora_one.paper.base import (
    ETA,
    RATIO,
    THETA,
    TIME,
    TRUE_RANK,
    hitting_time,
    instance,
)
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

LAWS = ("rademacher", "sphere")
D, OUTPUTS, LIFT, PROBABILITY = 40, 8, 100.0, 0.99
START_RATIOS, START_KAPPA, SHORT = (2, 16), 3.0, 0.9
EPS = np.finfo(np.float64).eps


def _sampled(seeds: tuple[int, ...], law: str, ratio: int, kappa: float = 1.0) -> LinearProblem:
    return sample_linear(
        d=D, k=OUTPUTS, true_rank=TRUE_RANK, samples=ratio * D, condition_number=kappa,
        inputs=law, seeds=seeds,
    )  # fmt: skip


def _reach(draws: Draws, *, lift: float) -> Evidence:
    """Time to alignment θ over its scale, at `lift` times the theorem's α."""
    found, numbers = [], {}
    for law in LAWS:
        seeds = draws.seeds(block=law)
        problem = _sampled(seeds, law, RATIO)
        unit = Factors(*methods.lora(init_std=1.0).init(problem, 2 * TRUE_RANK, seeds).trainable)
        of = instance(problem, unit, D, ETA)
        steps = math.ceil(TIME * of.scale.max())
        found.append(hitting_time(of, lift * of.alpha, steps=steps) / of.scale)
        numbers[f"time constant of 99 % of draws, {law}"] = float(
            np.quantile(found[-1], 0.99, method="higher")
        )
    return Evidence(np.concatenate(found), TIME, probability=PROBABILITY, numbers=numbers)


def _start(draws: Draws, laws: Sequence[str], *, strength: float) -> Evidence:
    """‖A₀B₀ − Δ‖_op against `strength` times ε‖Δ‖_op; the mutant's least ε is that over all Δ."""
    gaps, bounds, sizes, numbers = [], [], [], {}
    for law in laws:
        for ratio in START_RATIOS:
            problem = _sampled(draws.seeds(block=f"{law}, {ratio}"), law, ratio, START_KAPPA)
            A, B = methods.lora_one().init(problem, TRUE_RANK + 1, (0,)).trainable
            shift = problem.shift.dense()
            gaps.append(torch.linalg.matrix_norm(A @ B - shift, 2).numpy())
            sizes.append(torch.linalg.matrix_norm(shift, 2).numpy())
            bounds.append(problem.covariance_deviation().numpy() * sizes[-1])
            share = float((gaps[-1] / bounds[-1]).max())
            numbers[f"largest ratio to the bound, {law}, N = {ratio}d"] = share
    gap, bound, size = (np.concatenate(column) for column in (gaps, bounds, sizes))
    # One product with Σ̂ and one SVD, each rounding by eps in sums of d terms.
    tolerance = EPS * D * (size + bound)
    return Evidence(gap, strength * bound, tolerance=tolerance, numbers=numbers)


_NAMES = "independent signs, and rows uniform on the sphere of radius √d"
_LINEAR = "linear model, isotropic sub-Gaussian inputs"

CLAIMS = (
    Claim(
        id="lora-one/theorem-3.2/inputs",
        title="Alignment in logarithmic time for signs and for the sphere",
        reference="Theorem 3.2, sub-Gaussian inputs",
        statement=(
            "α = θ^{3κ♮/2} d^{−3κ♮/4 − 1/2} ‖G‖_op^{1/2}: ‖U_{r*,⊥}(G)ᵀU_{r*}(A_t)‖_op ≤ θ at some "
            f"t ≤ {TIME:g} ln(√d/θ)/ln(1 + ηλ_{{r*}}(G)), with probability at least "
            f"{PROBABILITY:g}."
        ),
        hypotheses=(_LINEAR, "LoRA-init, GD", "r = 2r*"),
        how=(
            f"X-based instances, {_NAMES}; d = {D}, N = {RATIO}d, r* = {TRUE_RANK}, equal λ*, "
            f"θ = {THETA:g}, η = {ETA:g}."
        ),
        kind="probability",
        measure=lambda draws: _reach(draws, lift=1.0),
        mutant_statement=f"the bound on α dropped: {LIFT:g} times larger",
        mutant=lambda draws: _reach(draws, lift=LIFT),
        trials=700,
        smoke_trials=60,
        derivation="3.6",
        uses=("lora-one/theorem-3.2", "lora-one/equation-8/inputs"),
    ),
    Claim(
        id="lora-one/theorem-3.3/inputs",
        title="Spectral-init within ε‖Δ‖ for signs and for the sphere",
        reference="Theorem 3.3, first inequality, sub-Gaussian inputs",
        statement="‖A₀B₀ − Δ‖_op ≤ ε‖Δ‖_op with ε = ‖Σ̂ − I‖_op.",
        hypotheses=(_LINEAR, "Spectral-init, r ≥ r*"),
        how=(
            f"X-based instances, {_NAMES}; d = {D}, N/d ∈ {set(START_RATIOS)}, "
            f"r* = {TRUE_RANK}, κ = {START_KAPPA:g}, Student entries beside them."
        ),
        kind="bound",
        measure=lambda draws: _start(draws, (*LAWS, "student"), strength=1.0),
        mutant_statement="the bound halved",
        mutant=lambda draws: _start(draws, LAWS, strength=0.5),
        trials=60,
        smoke_trials=8,
        explanation=(
            "Deterministic given ε, whatever the inputs: A₀B₀ = Σ̂Δ. Student entries are not "
            "sub-Gaussian, which only Eq. 8 needs."
        ),
        derivation="3.8",
        uses=("lora-one/theorem-3.3",),
    ),
)
