"""LoRA-Muon's whitened step is LoRA-RITE's, which is taken in QR coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import EPS, condition, gaussian, population, spectrum
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate

D, K, RANK, COND, ETA = 12, 9, 3, 3.0, 0.3
ROOT, LESS = 0.5, 0.45


def _gap(draws: Draws, *, power: float) -> Evidence:
    """‖dA·B − its piece‖, ‖A·dB − its piece‖ in quadrature over √(2r), of one step (dA, dB)."""
    seeds = draws.seeds()
    of = population(D, K, spectrum(COND, RANK), seeds).problem
    at = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    run = simulate(
        of, "lora-muon", rank=RANK, learning_rate=ETA, steps=1, initial=at, record=()
    )  # fmt: skip
    E = at.dense() - of.shift.dense()
    of_A = (at.A - run.final.A) @ at.B / ETA - _piece(E, at.B.mT, power)
    of_B = at.A @ (at.B - run.final.B) / ETA - _piece(E.mT, at.A, power).mT
    gap = (of_A.square() + of_B.square()).sum((-2, -1)).sqrt() / (2 * RANK) ** 0.5
    worse = torch.maximum(condition(at.A), condition(at.B)) ** 2
    # What msign is taken of, in an orthonormal basis of the other factor's range.
    polar = [condition(E @ _basis(at.B.mT)), condition(E.mT @ _basis(at.A))]
    allowed = 20 * D * EPS * worse * torch.maximum(*polar)
    return Evidence(gap.numpy(), 0.0, tolerance=allowed.numpy())


def _basis(M: Tensor) -> Tensor:
    return torch.linalg.qr(M).Q


def _piece(E: Tensor, right: Tensor, power: float) -> Tensor:
    """msign(EQ)(RRᵀ)^{½ − power}Qᵀ with right = QR; the core of RITE has power ½."""
    Q, R = torch.linalg.qr(right)
    U, _, Vh = torch.linalg.svd(E @ Q, full_matrices=False)
    S, W = torch.linalg.eigh(R @ R.mT)
    return U @ Vh @ (W * S[..., None, :] ** (ROOT - power)) @ W.mT @ Q.mT


CLAIMS = (
    Claim(
        id="lora-muon/rite",
        title="LoRA-Muon and LoRA-RITE's core take the same step",
        reference=(
            "Cesista, Crowson, Simal, Biderman, arXiv 2606.12921, abstract; its rule was read"
        ),
        statement=(
            "To first order both move AB by msign(𝒢Q_B)Q_Bᵀ and Q_A msign(Q_Aᵀ𝒢), Q_A and Q_B from "
            "the QR decompositions of A and Bᵀ."
        ),
        hypotheses=("A and B of full rank", "no momentum, no second moments"),
        how=(
            "The library's step of whitened factors, N^{−½} = (BBᵀ)^{−½} twice, against the "
            "formula "
            f"in QR coordinates; d = {D}, k = {K}, r = {RANK}; against d·eps·cond² times the "
            "condition of what msign is taken of."
        ),
        kind="identity",
        measure=lambda draws: _gap(draws, power=ROOT),
        mutant_statement=f"N to the power −{LESS:g} on the outside",
        mutant=lambda draws: _gap(draws, power=LESS),
        trials=20,
        smoke_trials=3,
        derivation="neighbours 8",
    ),
)
