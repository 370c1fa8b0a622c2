"""T3.2 and T3.3 for sub-Gaussian inputs that are not Gaussian."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, setting_of
from loraone_theory.claims.lora_one.paper.base import (
    ETA,
    RATIO,
    THETA,
    TIME,
    TRUE_RANK,
    farthest,
    hitting_time,
    instance,
)
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

LAWS = ("rademacher", "sphere")
D, OUTPUTS, PROBABILITY = 40, 8, 0.99
START_RATIOS, START_KAPPA, LESS = (2, 16), 3.0, 0.95
EPS = np.finfo(np.float64).eps


def _sampled(seeds: tuple[int, ...], law: str, ratio: int, kappa: float = 1.0) -> LinearProblem:
    return sample_linear(
        d=D, k=OUTPUTS, true_rank=TRUE_RANK, samples=ratio * D, condition_number=kappa,
        inputs=law, seeds=seeds,
    )  # fmt: skip


@functools.lru_cache(maxsize=len(LAWS))
def _times(seeds: tuple[int, ...], law: str) -> np.ndarray:
    """Time to alignment θ over its scale."""
    problem = _sampled(seeds, law, RATIO)
    unit = Factors(*methods.lora(init_std=1.0).init(problem, 2 * TRUE_RANK, seeds).trainable)
    of = instance(problem, unit, D, ETA)
    return hitting_time(of, of.alpha, steps=math.ceil(TIME * of.scale.max())) / of.scale


def _reach(draws: Draws, *, dropped: bool = False) -> Evidence:
    """Time to alignment θ over its scale; with `dropped`, over the scale without √d."""
    found, numbers = [], {}
    root = math.log(math.sqrt(D) / THETA) / math.log(1 / THETA) if dropped else 1.0
    for law in LAWS:
        found.append(root * _times(draws.seeds(block=law), law))
        numbers[f"time constant of 99 % of draws, {law}"] = float(
            np.quantile(found[-1], 0.99, method="higher")
        )
    return Evidence(
        np.concatenate(found), TIME, probability=PROBABILITY, numbers=numbers,
        setting=setting_of(found),
    )  # fmt: skip


def _start(draws: Draws, laws: Sequence[str], *, strength: float) -> Evidence:
    """‖A₀B₀ − Δ‖_op against `strength` times ε‖Δ‖_op; every second block has the worst Δ."""
    gaps, bounds, sizes, numbers = [], [], [], {}
    for law in laws:
        for ratio, worst in itertools.product(START_RATIOS, (False, True)):
            problem = _sampled(draws.seeds(block=f"{law}, {ratio}"), law, ratio, START_KAPPA)
            problem = farthest(problem) if worst else problem
            A, B = methods.lora_one().init(problem, TRUE_RANK + 1, (0,)).trainable
            shift = problem.shift.dense()
            gaps.append(torch.linalg.matrix_norm(A @ B - shift, 2).numpy())
            sizes.append(torch.linalg.matrix_norm(shift, 2).numpy())
            bounds.append(problem.covariance_deviation().numpy() * sizes[-1])
            share = float((gaps[-1] / bounds[-1]).max())
            kind = "the worst Δ" if worst else "random Δ"
            numbers[f"largest ratio to the bound, {law}, N = {ratio}d, {kind}"] = share
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
        measure=_reach,
        mutant_statement=f"√d dropped: t ≤ {TIME:g} ln(1/θ)/ln(1 + ηλ_{{r*}}(G))",
        mutant=lambda draws: _reach(draws, dropped=True),
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
            f"r* = {TRUE_RANK}, κ = {START_KAPPA:g}, Student entries beside them; half of "
            "them with the direction of Σ̂ farthest from one on top of Δ, where it is attained."
        ),
        kind="bound",
        measure=lambda draws: _start(draws, (*LAWS, "student"), strength=1.0),
        mutant_statement=f"{LESS:g} times the bound",
        mutant=lambda draws: _start(draws, LAWS, strength=LESS),
        trials=30,
        smoke_trials=4,
        explanation=(
            "Deterministic given ε, whatever the inputs: A₀B₀ = Σ̂Δ. Student entries are not "
            "sub-Gaussian, which only Eq. 8 needs."
        ),
        derivation="3.8",
        uses=("lora-one/theorem-3.3",),
    ),
)
