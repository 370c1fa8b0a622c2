"""The gradients of the ReLU model are the derivatives of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import EPS, gaussian
from loraone_theory.core.factors import Factors
from loraone_theory.problems.relu.sampling import sample_relu

D, K, RANK, SAMPLES, SHIFT = 8, 6, 2, 20, 0.5


def _quotient(draws: Draws, *, counted: int) -> Evidence:
    """(L(t) − L(−t))/2t along Gaussian directions of A and of B, against ⟨∇, ·⟩.

    t is half of what would change a sign of the preactivations, so that L is quadratic on [−t, t]
    and the quotient exact; `counted` in place of N in the gradients.
    """
    seeds = draws.seeds()
    problem = sample_relu(
        d=D, k=K, true_rank=RANK, samples=SAMPLES, relative_shift=SHIFT, seeds=seeds
    )
    at = Factors(gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B"))
    frozen = problem.inputs @ (problem.pretrained + at.dense())
    gradients, found, promised, allowed = problem.gradients(at), [], [], []
    for i, G in enumerate(gradients):
        V = gaussian(G.shape[-2], G.shape[-1], seeds, f"direction {i}")
        change = V @ at.B if i == 0 else at.A @ V
        t = 0.5 * (frozen.abs() / (problem.inputs @ change).abs()).amin((-2, -1))
        losses = [problem.loss(_moved(at, i, sign * t[:, None, None] * V)) for sign in (1, -1)]
        found.append((losses[0] - losses[1]) / (2 * t))
        promised.append((G * V).sum((-2, -1)) * SAMPLES / counted)
        allowed.append(10 * SAMPLES * K * EPS * (losses[0] + losses[1]) / t)
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=torch.cat(allowed).numpy()
    )


def _moved(at: Factors, which: int, move: Tensor) -> Factors:
    return at._replace(A=at.A + move) if which == 0 else at._replace(B=at.B + move)


CLAIMS = (
    Claim(
        id="lora-one/relu/derivative",
        title="The gradients are the derivatives of the loss",
        reference="LoRA-One, Section 4, the empirical loss; derivations 5.8",
        statement=(
            "Where no preactivation is zero ∇_A = XᵀMBᵀ/N and ∇_B = (XA)ᵀM/N are the derivatives "
            "of L = ‖relu(X(W + AB)) − Y‖_F²/2N."
        ),
        hypotheses=("no preactivation changes its sign on the way",),
        how=(
            "Central differences, exact on a quadratic piece, along Gaussian directions of A and "
            f"B; d = {D}, k = {K}, r = r* = {RANK}, N = {SAMPLES}, c = {SHIFT:g}."
        ),
        kind="identity",
        measure=lambda draws: _quotient(draws, counted=SAMPLES),
        mutant_statement="N − 1 in place of N in the gradients",
        mutant=lambda draws: _quotient(draws, counted=SAMPLES - 1),
        trials=100,
        smoke_trials=5,
        derivation="5.8",
    ),
)
