"""4: completion has no isometry constant; on the tangent space incoherence is what it has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import gaussian
from loraone_theory.claims.sensing.base import EPS, tangent_part
from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing import rip

D, K, RANK = 12, 8, 2


def _coherence(frame: Tensor) -> Tensor:
    """n/r max_i ‖F_i‖² of orthonormal columns F (..., n, r)."""
    n, r = frame.shape[-2:]
    return n / r * frame.square().sum(-1).amax(-1)


def _entries(draws: Draws, mu: Callable[[Factors], Tensor]) -> Evidence:
    """max_ij ‖P_T a_ij‖², a_ij = √(dk)e_ie_jᵀ, by the projection of every entry."""
    seeds = draws.seeds()
    shift = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    units = (D * K) ** 0.5 * torch.eye(D * K).double().view(-1, 1, D, K)
    found = tangent_part(shift, units).square().sum((-2, -1)).amax(0)
    of = mu(shift)
    promised = of * RANK * (D + K) - (of * RANK) ** 2
    # Projections of vectors of length √(dk), with frames of products of condition number below 1e2.
    return Evidence(found.numpy(), promised.numpy(), tolerance=1e2 * (D * K) ** 2 * EPS)


def _smaller(shift: Factors) -> Tensor:
    """The smaller of the two sides' coherences."""
    sides = (torch.linalg.qr(M).Q for M in (shift.A, shift.B.mT))
    return torch.minimum(*(_coherence(Q) for Q in sides))


CLAIMS = (
    Claim(
        id="sensing/incoherence",
        title="What completion sees of the tangent space",
        reference="derivations, sensing 4",
        statement=(
            "‖P_T a‖² <= μr(d + k) − (μr)² for every entry a = √(dk)e_ie_jᵀ, with the incoherence "
            "μ = max(d/r max_i ‖U_i‖², k/r max_j ‖V_j‖²)."
        ),
        hypotheses=("completion", "r = r*"),
        how=(
            f"The projections of all entries; Δ a product of Gaussian factors, d = {D}, k = {K}, "
            f"r = {RANK}."
        ),
        kind="bound",
        measure=lambda draws: _entries(draws, rip.incoherence),
        mutant_statement="the smaller of the two in place of the larger",
        mutant=lambda draws: _entries(draws, _smaller),
        trials=200,
        smoke_trials=10,
        derivation="sensing 4",
    ),
)
