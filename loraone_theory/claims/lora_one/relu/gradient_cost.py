"""5.8: gradients that never form the full gradient, and what they cost."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu import closed_forms as relu_math
from loraone_theory.problems.relu.population import THIN_ENTRIES
from loraone_theory.problems.relu.problem import BLOCK_BYTES, ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

D, K, TRUE_RANK, RANK = 20, 32, 2, 3
# Two blocks of rows and a part of a third one.
SAMPLES = 5 * BLOCK_BYTES // (2 * K * 8) + 1
WIDE = 2 * round(THIN_ENTRIES**0.5) // 2


def _factors(draws: Draws, d: int, k: int, rank: int, size: float) -> Factors:
    A = torch.from_numpy(draws.normals(d, rank, block="A")) / d**0.5
    B = size * torch.from_numpy(draws.normals(rank, k, block="B"))
    like = torch.empty(0, dtype=getattr(torch, draws.dtype), device=draws.device)
    return Factors(A.to(like), B.to(like))


def _problem(draws: Draws) -> ReLUProblem:
    return sample_relu(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, relative_shift=0.3, seeds=draws.seeds(),
        **draws.place,
    )  # fmt: skip


def _blocked(draws: Draws, *, own_mask: bool) -> Evidence:
    """Relative gap to ∇_A = −JBᵀ, ∇_B = −AᵀJ with J from its definition."""
    problem, learned = _problem(draws), _factors(draws, D, K, RANK, 0.3)
    found = problem.gradients(learned)
    X, Y = problem.inputs, torch.relu(problem.inputs @ (problem.pretrained + problem.shift.dense()))
    Z = X @ (problem.pretrained + learned.dense())
    mask = Z > 0 if own_mask else Y > 0
    M = (Y - torch.relu(Z)) * mask
    J = X.mT @ M / SAMPLES
    gaps, limits = [], []
    size = torch.linalg.matrix_norm
    terms = size(X) * size(M) / SAMPLES
    for value, promised, factor in (
        (found.A, -J @ learned.B.mT, size(learned.B)),
        (found.B, -learned.A.mT @ J, size(learned.A)),
    ):
        gaps.append((size(value - promised) / size(promised)).cpu().numpy())
        limits.append((terms * factor / size(promised)).cpu().numpy())
    return Evidence(
        lhs=np.max(gaps, axis=0),
        rhs=0.0,
        # Sums of N products, whose rounding errors are independent, then of k or d of them.
        tolerance=8 * draws.eps * np.sqrt(SAMPLES) * np.max(limits, axis=0),
        numbers={"largest relative gap": float(np.max(gaps)), "N": float(SAMPLES)},
    )


def _operations(draws: Draws, *, inner: int) -> Evidence:
    """Operations of one gradient over 4Ndr + inner·Nrk, as the tensor library counts them."""
    shapes = ((20, 32, 3, 900), (40, 10, 2, 3000), (16, 64, 8, 2500))
    ratios = []
    for d, k, rank, samples in shapes:
        for seed in draws.seeds(count=-(-draws.trials // len(shapes))):
            problem = sample_relu(
                d=d, k=k, true_rank=TRUE_RANK, samples=samples, relative_shift=0.3, seeds=[seed]
            )
            learned = Factors(
                problem.pretrained.new_ones(1, d, rank), problem.pretrained.new_ones(1, rank, k)
            )
            problem.gradients(learned)  # labels and XW are made once and kept
            with FlopCounterMode(display=False) as counter:
                problem.gradients(learned)
            promised = 4 * samples * d * rank + inner * samples * rank * k
            ratios.append(counter.get_total_flops() / promised)
    return Evidence(
        lhs=np.array(ratios), rhs=1.0, numbers={"mean ratio to the promise": float(np.mean(ratios))}
    )


def _thin(draws: Draws, *, broken: bool = False) -> Evidence:
    """Relative gap of thin population gradients to those of the dense J."""
    problem = sample_relu_population(
        d=WIDE, k=WIDE, true_rank=TRUE_RANK, relative_shift=0.3, seeds=draws.seeds(), **draws.place
    )
    learned = _factors(draws, WIDE, WIDE, RANK, 0.05)
    found = problem.gradients(learned)
    AB = learned.dense()
    E, weight = problem.shift.dense() - AB, problem.pretrained + AB
    J = 0.5 * E if broken else relu_math.negative_gradient(E, weight)
    size = torch.linalg.matrix_norm
    first = size(found.A + J @ learned.B.mT) / (size(J) * size(learned.B))
    second = size(found.B + learned.A.mT @ J) / (size(J) * size(learned.A))
    worst = torch.maximum(first, second).cpu().numpy()
    return Evidence(
        lhs=worst,
        rhs=0.0,
        # Products over d terms; the part of w' outside the basis is at least 1/16 of it.
        tolerance=16 * draws.eps * np.sqrt(WIDE),
        numbers={"largest relative gap": float(worst.max()), "d = k": float(WIDE)},
    )


CLAIMS = (
    Claim(
        id="lora-one/relu/gradient-cost",
        aliases=("5.8",),
        title="Gradients in blocks of rows, J never formed",
        reference="derivations 5.8",
        statement=(
            "With Z = XW + (XA)B and M = (relu(Z) − Y) ⊙ 1{Z > 0}: ∇_A = Xᵀ(MBᵀ)/N and "
            "∇_B = (XA)ᵀM/N equal −JBᵀ and −AᵀJ."
        ),
        hypotheses=("ReLU model",),
        how=f"d = {D}, k = {K}, r = {RANK}, N = {SAMPLES}: two blocks and a part of a third.",
        kind="identity",
        measure=lambda draws: _blocked(draws, own_mask=True),
        mutant_statement="the mask of the labels, 1{Y > 0}",
        mutant=lambda draws: _blocked(draws, own_mask=False),
        trials=60,
        smoke_trials=4,
        derivation="5.8",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/relu/gradient-cost/operations",
        aliases=("5.8/operations",),
        title="4Ndr + 6Nrk operations",
        reference="derivations 5.8",
        statement="One gradient takes 4Ndr + 6Nrk operations in products, once XW and Y are known.",
        hypotheses=("ReLU model",),
        how="Operations counted by the tensor library at three shapes (d, k, r, N).",
        kind="identity",
        measure=lambda draws: _operations(draws, inner=6),
        mutant_statement="4Ndr + 4Nrk",
        mutant=lambda draws: _operations(draws, inner=4),
        trials=6,
        smoke_trials=3,
        derivation="5.8",
        uses=("lora-one/relu/gradient-cost",),
    ),
    Claim(
        id="lora-one/relu/gradient-cost/population",
        aliases=("5.8/population",),
        title="Population gradients from thin factors",
        reference="derivations 5.8",
        statement=(
            "With [L, A] = QR, C = R_L·Rt − R_A·B and scalars s₁, s₂ per column, "
            "J = QC diag(s₁) + (W + AB) diag(s₂) gives −JBᵀ and −AᵀJ from two products with W."
        ),
        hypotheses=("Gaussian inputs, N = ∞",),
        how=(
            f"d = k = {WIDE}, r = {RANK}, r* = {TRUE_RANK}, against the dense closed form of "
            "derivations 5.1."
        ),
        kind="identity",
        measure=_thin,
        mutant_statement="J = ½E",
        mutant=lambda draws: _thin(draws, broken=True),
        trials=20,
        smoke_trials=3,
        derivation="5.8",
        uses=("lora-one/relu/closed-forms",),
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
)
