"""Behind the dichotomy: rank-deficient critical points, and the norm that decay minimises."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import (
    EPS,
    condition,
    gaussian,
    haar,
    population,
    spectrum,
)
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator
from loraone_theory.core.roots import psd_root

D, KEPT, RANK, KAPPA = 8, 2, 4, 8.0


def _hessian(at: Factors, E: Tensor) -> Tensor:
    """That of ½‖AB − Δ‖² at (A, B), E = AB − Δ: (n, p, p) with p = (d + k)r."""
    rank = at.A.shape[-1]
    basis = torch.eye(2 * D * rank, dtype=E.dtype)
    dA = basis[:, : D * rank].unflatten(-1, (D, rank))
    dB = basis[:, D * rank :].unflatten(-1, (rank, D))
    A, B, E = at.A[:, None], at.B[:, None], E[:, None]
    moved = dA @ B + A @ dB
    of_A, of_B = moved @ B.mT + E @ dB.mT, A.mT @ moved + dA.mT @ E
    return torch.cat([of_A.flatten(-2), of_B.flatten(-2)], -1)


def _escape(draws: Draws, *, rank: int) -> Evidence:
    """λ_min of the Hessian over −‖∇_W L‖_op, where some singular pairs of Δ are kept exactly."""
    seeds = draws.seeds()
    of = population(D, D, spectrum(KAPPA, D), seeds)
    order = torch.stack([torch.from_numpy(generator(s, "kept").permutation(D)) for s in seeds])
    kept = order[:, :KEPT]
    U, V = (torch.take_along_dim(M, kept[:, None, :], -1) for M in (of.U, of.V))
    root = torch.take_along_dim(of.S, kept, -1).sqrt()
    pad = (0, rank - KEPT)
    at = Factors(
        torch.nn.functional.pad(U * root[:, None, :], pad),
        torch.nn.functional.pad(V * root[:, None, :], pad).mT,
    )
    E = at.dense() - of.problem.shift.dense()
    least = torch.linalg.eigvalsh(_hessian(at, E))[:, 0]
    # eigvalsh errs by p·eps of the largest eigenvalue, about 2κ, against ‖∇_W L‖_op ≥ 1.
    allowed = 2 * D * rank * EPS * 2 * KAPPA
    ratio = least / -torch.linalg.matrix_norm(E, ord=2)
    return Evidence(ratio.numpy(), 1.0, tolerance=allowed)


NORM_RANK, SPREAD, HALF, MORE = 3, 10.0, 0.5, 0.6


def _least_norm(draws: Draws, *, power: float) -> Evidence:
    """½(‖AP‖² + ‖P⁻¹B‖²) at the best gauge P, from factors that are far from balanced."""
    seeds = draws.seeds()
    A, B = gaussian(D, NORM_RANK, seeds, "A"), gaussian(NORM_RANK, D, seeds, "B")
    B = haar(NORM_RANK, NORM_RANK, seeds, "Q") * spectrum(SPREAD, NORM_RANK) @ B
    M, N = A.mT @ A, B @ B.mT
    root = psd_root(M)
    values, W = torch.linalg.eigh(root @ N @ root)
    inner = (W * values[..., None, :] ** power) @ W.mT
    # PPᵀ = M^{−½}(M^{½}NM^{½})^{½}M^{−½}; ‖AP‖² and ‖P⁻¹B‖² hang on it alone.
    gauge = torch.linalg.solve(root, torch.linalg.solve(root, inner).mT)
    found = (_trace(M @ gauge) + _trace(torch.linalg.solve(gauge, N))) / 2
    promised = torch.linalg.svdvals(A @ B).sum(-1)
    allowed = 20 * D * EPS * (condition(M) * condition(N))
    return Evidence((found / promised).numpy(), 1.0, tolerance=allowed.numpy())


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(-1)


CLAIMS = (
    Claim(
        id="fails-loudly/escape",
        title="At a rank-deficient critical point the gradient in W is a way down",
        reference=(
            "derivations, neighbours 13, the core of the dichotomy in arXiv 2502.09376 (abstract)"
        ),
        statement=(
            "Where Aq = 0 and qᵀB = 0 for some q, λ_min of the Hessian is −‖∇_W L‖_op: a "
            "second-order "
            "stationary point of rank below r has ∇_W L = 0."
        ),
        hypotheses=(
            "𝒜 = I",
            "critical: some singular pairs of Δ are kept, balanced",
            "rank AB < r",
        ),
        how=(
            f"λ_min over −‖E‖_op; d = k = {D}, r = {RANK}, {KEPT} random pairs kept, κ = {KAPPA:g}."
        ),
        kind="identity",
        measure=lambda draws: _escape(draws, rank=RANK),
        mutant_statement=f"r = {KEPT}, so that there is no q",
        mutant=lambda draws: _escape(draws, rank=KEPT),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 13",
    ),
    Claim(
        id="fails-loudly/nuclear-norm",
        title="Weight decay on both factors is the nuclear norm of the product",
        reference="arXiv 2502.09376, reviews; a standard identity, derivations, neighbours 13",
        statement="The minimum of ½(‖A‖² + ‖B‖²) over AB = X is ‖X‖_*.",
        hypotheses=("A and B of full rank r",),
        how=(
            "½(‖AP‖² + ‖P⁻¹B‖²) over ‖AB‖_* at the P of the derivation, computed from AᵀA and BBᵀ; "
            f"d = k = {D}, r = {NORM_RANK}, against d·eps·cond(A)²cond(B)²."
        ),
        kind="identity",
        measure=lambda draws: _least_norm(draws, power=HALF),
        mutant_statement=f"the power {MORE:g} in place of ½ in P",
        mutant=lambda draws: _least_norm(draws, power=MORE),
        trials=20,
        smoke_trials=4,
        derivation="neighbours 13",
    ),
)
