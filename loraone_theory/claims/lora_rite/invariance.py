"""The step of AB from (AQ, Q⁻¹B): for which methods it is the same, and for which Q."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import EPS, Population, condition, haar, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods import Method

D, K, RANK, COND = 12, 9, 3, 3.0
SCALE, WORST, ETA, BENT = 3.0, 10.0, 0.3, 1.01
REG = 1e-2
WHOLE = (
    methods.p_lora(),
    methods.p_lora_alternating(),
    methods.lora_muon(),
    methods.lora_rite(betas=(0.0, 0.0)),
)
TURNING = (methods.lora(), methods.muon())
PRO = (methods.lora_pro(ridge=0.0),)


def _gauges(seeds: Sequence[int]) -> dict[str, Tensor]:
    """Orthogonal, nearly so, a multiple of I, and one of condition number WORST."""
    P, R = (haar(RANK, RANK, seeds, name) for name in ("P", "R"))
    values, ones = spectrum(WORST, RANK) / WORST**0.5, torch.ones(RANK, dtype=P.dtype)
    ones[0] = BENT
    return {
        "orthogonal": P,
        "nearly orthogonal": (P * ones) @ R.mT,
        "multiple of I": SCALE * torch.eye(RANK, dtype=P.dtype).expand_as(P),
        "general": (P * values) @ R.mT,
    }


def _step(of: Population, method: Method, at: Factors, damping: float, first: bool) -> Tensor:
    """A⁺B⁺ − AB after one step, or its part of first order in η."""
    run = simulate(
        of.problem, method, rank=RANK, learning_rate=ETA, steps=1, initial=at, damping=damping,
        record=(),
    )  # fmt: skip
    if first:
        return (run.final.A - at.A) @ at.B + at.A @ (run.final.B - at.B)
    return run.final.dense() - at.dense()


def _changes(
    draws: Draws,
    of_methods: Sequence[Method],
    *,
    only: str = "",
    damping: float = 0.0,
    first: bool = False,
) -> Evidence:
    """Largest ‖step′ − step‖/‖step‖ over methods and gauges, one per draw."""
    seeds = draws.seeds()
    of = population(D, K, spectrum(COND, RANK), seeds)
    shape = spectrum(COND, RANK)
    at = Factors(
        haar(D, RANK, seeds, "left") * shape @ haar(RANK, RANK, seeds, "inner"),
        (haar(K, RANK, seeds, "right") * shape).mT,
    )
    worst = torch.zeros(len(seeds), dtype=torch.float64)
    allowed, numbers = torch.zeros_like(worst), {}
    E = at.dense() - of.problem.shift.dense()
    # What msign is taken of, in an orthonormal basis of the other factor's range.
    polar = torch.maximum(
        condition(E @ torch.linalg.qr(at.B.mT).Q), condition(torch.linalg.qr(at.A).Q.mT @ E)
    )
    for name, Q in _gauges(seeds).items():
        if only not in ("", name):
            continue
        moved = Factors(at.A @ Q, torch.linalg.solve(Q, at.B))
        worse = torch.maximum(condition(moved.A), condition(moved.B))
        allowed = torch.maximum(allowed, 20 * D * EPS * worse**2 * polar)
        for method in of_methods:
            step, other = (_step(of, method, pair, damping, first) for pair in (at, moved))
            change = torch.linalg.matrix_norm(other - step) / torch.linalg.matrix_norm(step)
            worst = torch.maximum(worst, change)
            numbers[f"largest change, {method.name}, {name}"] = float(change.max())
    return Evidence(worst.numpy(), 0.0, tolerance=allowed.numpy(), numbers=numbers)


SIZES = f"d = {D}, k = {K}, r = {RANK}"
MODEL = ("𝒜 = I, E of full rank on the factors' ranges", "A and B of full rank", "no momentum")
CLAIMS = (
    Claim(
        id="lora-rite/invariance",
        title="Which steps do not depend on the gauge",
        reference=(
            "Yen et al., arXiv 2410.20625, the definition of transformation invariance (Eq. 12, "
            "through notes); that the other methods have it is derivations, neighbours 8"
        ),
        statement=(
            "From (AQ, Q⁻¹B), Q invertible, AB moves as from (A, B): under ScaledGD, alternating "
            "ScaledGD (AltLoRA without momentum), LoRA-Muon and LoRA-RITE's core."
        ),
        hypotheses=MODEL,
        how=(
            f"Largest relative change of one step, Q orthogonal, {SCALE:g}I and of condition "
            f"{WORST:g}; {SIZES}, factors and Δ of condition {COND:g}; against d·eps·cond² times "
            "the condition of what msign is taken of."
        ),
        kind="identity",
        measure=lambda draws: _changes(draws, WHOLE),
        mutant_statement=f"ScaledGD with {REG:g}·I added to the Gram matrices",
        mutant=lambda draws: _changes(draws, WHOLE[:1], damping=REG),
        trials=20,
        smoke_trials=3,
        derivation="neighbours 8",
        uses=("lora-one/linear/gauge",),
    ),
    Claim(
        id="lora-rite/invariance/lora-pro",
        title="LoRA-Pro is invariant to first order",
        reference="derivations, neighbours 8",
        statement=(
            "From (AQ, Q⁻¹B) LoRA-Pro's g^A B + A g^B, the move of AB to first order in η, is that "
            "from (A, B)."
        ),
        hypotheses=MODEL,
        how=(
            f"Largest relative change, Q orthogonal, {SCALE:g}I and of condition {WORST:g}; "
            f"{SIZES}, "
            f"factors and Δ of condition {COND:g}."
        ),
        kind="identity",
        measure=lambda draws: _changes(draws, PRO, first=True),
        mutant_statement="the whole step, with η²g^A g^B",
        mutant=lambda draws: _changes(draws, PRO),
        trials=20,
        smoke_trials=3,
        explanation=(
            "How LoRA-Pro cuts the move into g^A and g^B is decided by distances of the factors' "
            "gradients, which depend on the gauge, and so does the term of second order."
        ),
        derivation="neighbours 8",
        uses=("lora-one/linear/lora-pro/optimum",),
    ),
    Claim(
        id="lora-rite/invariance/rotations",
        title="Gradient descent and Muon are invariant under rotations alone",
        reference="derivations, neighbours 8",
        statement="For orthogonal Q gradient descent and Muon on each factor move AB alike.",
        hypotheses=MODEL,
        how=f"Largest relative change of one step; {SIZES}, factors and Δ of condition {COND:g}.",
        kind="identity",
        measure=lambda draws: _changes(draws, TURNING, only="orthogonal"),
        mutant_statement=f"for Q with one singular value {BENT:g} in place of 1",
        mutant=lambda draws: _changes(draws, TURNING, only="nearly orthogonal"),
        trials=20,
        smoke_trials=3,
        derivation="neighbours 8",
        uses=("lora-one/linear/gauge/gd",),
    ),
)
