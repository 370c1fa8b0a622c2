"""T3.3: Spectral-init starts as close to Δ as the sample covariance is to the identity."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, Measure, listed
from loraone_theory.claims.lora_one.paper.base import farthest
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, WIDE, K, TRUE_RANK = 30, 1000, 20, 3
RATIOS, CONDITION_NUMBERS = (2, 16), (1.0, 10.0)
LESS, SMALLER = 0.95, 0.9
# Of the second inequality, where it is nearly attained: ε is just below ½ there, and Δ lies where
# Σ̂ is farthest from one.
MIDDLE, NEAR, PLENTY = 120, 22, 40


def _start_gap(draws: Draws, ratio: int, kappa: float, *, worst: bool) -> tuple[np.ndarray, ...]:
    """‖A₀B₀ − Δ‖_op, ε = ‖Σ̂ − I‖_op, ‖Δ‖_op and λ*_{r*} on X-based instances."""
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=ratio * D, condition_number=kappa,
        seeds=draws.seeds(), **draws.place,
    )  # fmt: skip
    if worst:
        problem = farthest(problem)
    run = simulate(problem, "lora-one", rank=TRUE_RANK + 1, learning_rate=0.1, steps=1, record=())
    E = run.initial.dense() - problem.shift.dense()
    gap = torch.linalg.matrix_norm(E, 2)
    spectrum = torch.linalg.svdvals(problem.shift.dense())
    return tuple(
        t.cpu().numpy()
        for t in (gap, problem.covariance_deviation(), spectrum[:, 0], spectrum[:, TRUE_RANK - 1])
    )


def _first(draws: Draws, *, strength: float) -> Evidence:
    parts = [
        _start_gap(draws, ratio, kappa, worst=worst)
        for ratio in RATIOS
        for kappa in CONDITION_NUMBERS
        for worst in (False, True)
    ]
    gap, deviation, top, _ = (np.concatenate(column) for column in zip(*parts, strict=True))
    bound = strength * deviation * top
    return Evidence(
        lhs=gap,
        rhs=bound,
        tolerance=draws.eps * D * top * (1 + deviation),
        numbers={"largest ratio to the bound": float((gap / (deviation * top)).max())},
    )


def _gap_at_one(draws: Draws, d: int, ratio: int, *, worst: bool) -> tuple[np.ndarray, ...]:
    """‖A₀B₀ − Δ‖_op and ε on exact-law instances at κ = 1."""
    problem = sample_linear_matrix_free(
        d=d, k=K, true_rank=TRUE_RANK, samples=ratio * d, seeds=draws.seeds(block=d),
        **draws.place,
    )  # fmt: skip
    if worst:
        problem = farthest(problem)
    A, B = methods.lora_one().init(problem, TRUE_RANK, (0,)).trainable
    # A₀B₀ − Δ as thin factors: its singular values are those of a product of two R factors.
    E = concatenate(Factors(A, B), Factors(-problem.shift.A, problem.shift.B))
    R = torch.linalg.qr(E.A).R @ torch.linalg.qr(E.B.mT).R.mT
    gap = torch.linalg.matrix_norm(R, 2)
    return gap.cpu().numpy(), problem.covariance_deviation().cpu().numpy()


def _second(
    draws: Draws, ratio: int, near: int | None, *, share: float = 1.0, hypothesis: bool = True
) -> Evidence:
    """‖A₀B₀ − Δ‖_op <= λ*_{r*}/2 for any Δ at d = `WIDE`, which concentrates.

    Beside it for the worst Δ at N = `near`·d, which a smaller d is enough for.
    """
    parts = {f"d = {WIDE}": _gap_at_one(draws, WIDE, ratio, worst=False)}
    if near is not None:
        parts["the worst Δ"] = _gap_at_one(draws, MIDDLE, near, worst=True)
    gap, deviation = (np.concatenate(column) for column in zip(*parts.values(), strict=True))
    numbers: dict[str, float] = {}
    for name, (found, eps) in parts.items():
        numbers |= {
            f"mean of ε = ‖Σ̂ − I‖_op, {name}": float(eps.mean()),
            f"share with ε ≤ 1/2, {name}": float((eps <= 0.5).mean()),
            f"mean of ‖A₀B₀ − Δ‖_op, {name}": float(found.mean()),
        }
    return Evidence(
        lhs=gap,
        rhs=share * 0.5,
        inside=deviation <= 0.5 if hypothesis else True,
        tolerance=draws.eps * WIDE,
        numbers=numbers,
    )


_HYPOTHESES = ("linear model", "isotropic inputs", "Spectral-init, r ≥ r*")
_SECOND = "‖A₀B₀ − Δ‖_op ≤ λ*_{r*}/2, from ε = ‖Σ̂ − I‖_op ≤ 1/(2κ)."


def _second_claim(
    id: str,
    alias: str,
    title: str,
    ratio: int,
    expected: Finding,
    explanation: str,
    *,
    how: str,
    measure: Measure,
    mutant_statement: str,
    mutant: Measure,
) -> Claim:
    return Claim(
        id=id,
        aliases=(alias,),
        title=title,
        reference="Theorem 3.3, second inequality",
        statement=_SECOND,
        hypotheses=(*_HYPOTHESES, "ε ≤ 1/(2κ), Eq. 8"),
        how=f"Exact-law instances, equal λ*: d = {WIDE}, N = {ratio}d{how}.",
        kind="bound",
        measure=measure,
        mutant_statement=mutant_statement,
        mutant=mutant,
        trials=300,
        smoke_trials=20,
        expected=expected,
        explanation=explanation,
        derivation="3.8",
        uses=("lora-one/theorem-3.3", "lora-one/equation-8", "lora-one/linear/exact-law"),
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    )


CLAIMS = (
    Claim(
        id="lora-one/theorem-3.3",
        aliases=("T3.3",),
        title="Spectral-init starts within ε‖Δ‖ of the target",
        reference="Theorem 3.3, first inequality",
        statement="‖A₀B₀ − Δ‖_op ≤ ε‖Δ‖_op with ε = ‖Σ̂ − I‖_op.",
        hypotheses=_HYPOTHESES,
        how=(
            f"X-based instances at d = {D}, N/d = {listed(RATIOS)}, κ = "
            f"{listed(CONDITION_NUMBERS)}; half of them with the direction of Σ̂ farthest from one "
            "on top of Δ, where the bound is attained."
        ),
        kind="bound",
        measure=lambda draws: _first(draws, strength=1.0),
        mutant_statement=f"{LESS:g} times the bound",
        mutant=lambda draws: _first(draws, strength=LESS),
        trials=125,
        smoke_trials=10,
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    _second_claim(
        "lora-one/theorem-3.3/second",
        "T3.3/second",
        "Within half the smallest singular value, where ε is small",
        PLENTY,
        Finding.SUPPORTED,
        f"Holds where its hypothesis does, and is attained at its edge; N = {PLENTY}d is enough at "
        "κ = 1.",
        how=(
            f", and d = {MIDDLE}, N = {NEAR}d with the direction of Σ̂ farthest from one on top of "
            "Δ, where ‖A₀B₀ − Δ‖_op = ε"
        ),
        measure=lambda draws: _second(draws, PLENTY, NEAR),
        mutant_statement=f"{SMALLER:g} λ*_{{r*}}/2",
        mutant=lambda draws: _second(draws, PLENTY, NEAR, share=SMALLER),
    ),
    _second_claim(
        "lora-one/theorem-3.3/second/n-16d",
        "T3.3/second at N = 16d",
        "The same at the reference sample size",
        RATIOS[-1],
        Finding.OUTSIDE_HYPOTHESES,
        "At N = 16d the expected ε is 0.56, so not even κ = 1 meets ε ≤ 1/2: that takes "
        "N ≥ 19.8d. The inequality itself may still hold there; only its hypothesis fails.",
        how="",
        measure=lambda draws: _second(draws, RATIOS[-1], None),
        mutant_statement=(
            f"the hypothesis on ε dropped, also where Σ̂ is farthest from one on Δ (d = {MIDDLE})"
        ),
        mutant=lambda draws: _second(draws, RATIOS[-1], RATIOS[-1], hypothesis=False),
    ),
)
