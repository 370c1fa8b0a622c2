"""No diagonal preconditioner of the factors is free of the gauge."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, gaussian, haar, population, spectrum

D, K, RANKS, COND = 12, 9, (3, 4), 10.0
# Far above the rounding of the map, 20·D·EPS·COND, and far below what Q so conditioned gives.
FLOOR = 1e4 * 20 * D * EPS * COND


def _residual(draws: Draws, *, diagonal: bool) -> Evidence:
    """Least ‖𝒢Bᵀ(P − Q^{−ᵀ}P′Q⁻¹)B‖ over diagonal (P, P′), columns of norm 1, ‖(P, P′)‖ = 1."""
    found = []
    for rank in RANKS[:1] if draws.smoke else RANKS:
        seeds = draws.seeds(block=rank)
        G = -population(D, K, spectrum(COND, rank), seeds).problem.shift.dense()
        B, values = gaussian(rank, K, seeds, "B"), spectrum(COND, rank)
        Q = torch.diag(values).expand(len(seeds), rank, rank)
        if not diagonal:
            Q = haar(rank, rank, seeds, "P") * values @ haar(rank, rank, seeds, "R").mT
        columns = torch.cat([_moves(G, B), _moves(G, torch.linalg.solve(Q, B))], -1)
        columns = columns / torch.linalg.vector_norm(columns, dim=-2, keepdim=True)
        found.append(torch.linalg.svdvals(columns)[..., -1])
    least = torch.cat(found)
    numbers = {"least residual": float(least.min()), "median residual": float(least.median())}
    return Evidence(torch.full_like(least, FLOOR).numpy(), least.numpy(), numbers=numbers)


def _moves(G: Tensor, B: Tensor) -> Tensor:
    """The moves 𝒢Bᵀe_ie_iᵀB of W that the entries of a diagonal P stand for, (..., dk, r)."""
    moves = (G @ B.mT)[..., :, None, :] * B.mT[..., None, :, :]
    return moves.flatten(-3, -2)


CLAIMS = (
    Claim(
        id="lora-rite/no-diagonal",
        title="No diagonal preconditioner is invariant",
        reference=(
            "Yen et al., arXiv 2410.20625, through notes; the form with one Q is derivations, "
            "neighbours 8"
        ),
        statement=(
            "For generic Q and r ≥ 3, A ← A − ∇_A P at (A, B) and A ← A − ∇_A P′ at (AQ, Q⁻¹B), P "
            "and P′ diagonal, move AB alike only if P = P′ = 0."
        ),
        hypotheses=("r ≥ 3", f"Q = P diag Rᵀ of condition {COND:g}, P and R Haar; B Gaussian"),
        how=(
            "Smallest singular value of the map from the diagonals (P, P′) to the difference of "
            "the "
            f"moves, columns of norm one, is above {FLOOR:.0e}; d = {D}, k = {K}, r = "
            f"{listed(RANKS)}."
        ),
        kind="bound",
        measure=lambda draws: _residual(draws, diagonal=False),
        mutant_statement="for diagonal Q, under which diag(BBᵀ)⁻¹ is invariant",
        mutant=lambda draws: _residual(draws, diagonal=True),
        trials=100,
        smoke_trials=10,
        derivation="neighbours 8",
    ),
)
