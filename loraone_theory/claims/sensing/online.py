"""6: moments of gradients on fresh batches, where descent settles, and the law at any width."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS, LAW, NO_PROOF, ratios, same_law
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.online import simulate_online

D, K, RANK, BATCH, NOISE, STRIDE, N = 4, 3, 2, 3, 0.5, 0.5, 7
ALLOWANCES = {"multi-response": 0.05, "dense": 0.05, "rank-one": 0.1}
OF_STEP, SETTLES = 0.1, 0.03
FACTORS = {
    "multi-response": ("d + 1", "d", D),
    "dense": ("dk + 1", "dk − 1", D * K - 1),
    "rank-one": ("(d + 2)(k + 2) − 1", "(d + 1)(k + 2) − 1", (D + 1) * (K + 2) - 1),
}


def _fixed() -> tuple[Factors, Tensor]:
    """Factors of size one and E = AB − Δ, the same in every draw."""
    source = torch.Generator().manual_seed(0)
    A, B, T = (
        torch.randn(*shape, generator=source, dtype=torch.float64)
        for shape in ((D, RANK), (RANK, K), (D, K))
    )
    return Factors(A / 2, B / 2), A @ B / 4 - T / 2


def _gradients(draws: Draws, ensemble: str, E: Tensor) -> Tensor:
    """ĝ on a fresh batch for each draw, (n, d, k)."""
    rows = draws.normals(BATCH, D * K + D + K)
    a, x, z = np.split(rows, np.cumsum((D * K, D)), axis=-1)
    if ensemble == "multi-response":
        X, noise = torch.from_numpy(x), NOISE * torch.from_numpy(z)
        return X.mT @ (X @ E - noise) / BATCH
    if ensemble == "dense":
        matrices = torch.from_numpy(a).unflatten(-1, (D, K))
    else:
        matrices = torch.from_numpy(x)[..., :, None] * torch.from_numpy(z)[..., None, :]
    noise = NOISE * torch.from_numpy(draws.normals(BATCH, block="noise"))
    miss = (matrices * E).sum((-2, -1)) - noise
    return (miss[..., None, None] * matrices).mean(1)


def _variance(draws: Draws, ensemble: str, *, wrong: bool) -> Evidence:
    _, E = _fixed()
    spread = ((_gradients(draws, ensemble, E) - E) ** 2).sum((-2, -1))
    law = predict.stochastic.gradient_variance(
        float(E.norm()), d=D, k=K, batch=BATCH, noise_std=NOISE, ensemble=ensemble
    )
    if wrong:
        law = (FACTORS[ensemble][2] * float(E.norm()) ** 2 + NOISE**2 * D * K) / BATCH
    return ratios(spread, law, ALLOWANCES[ensemble])


def _step(draws: Draws, *, trace: float) -> Evidence:
    """E⁺ along the part of its mean that the batch adds, over what that part promises."""
    at, E = _fixed()
    rate = STRIDE
    g = _gradients(draws, "multi-response", E)
    found = (at.A - rate * g @ at.B.mT) @ (at.B - rate * at.A.mT @ g) - (at.A @ at.B - E)
    whole = predict.stochastic.mean_next_error(
        at, E, learning_rate=rate, batch=BATCH, noise_std=NOISE
    )
    full = E - rate * (E @ at.B.mT @ at.B + at.A @ at.A.mT @ E)
    full = full + rate**2 * E @ (at.A @ at.B).mT @ E
    added = whole - full
    wrong = added - (1 - trace) * rate**2 / BATCH * ((at.A @ at.B) * E).sum() * E
    direction = added / added.norm()
    return ratios(
        (direction * (found - full)).sum((-2, -1)), float((direction * wrong).sum()), OF_STEP
    )


def _subsets(draws: Draws, *, less: int) -> Evidence:
    """E‖ĝ − ḡ‖² over all subsets, against (N − b)/(b(N − less)) of a row's."""
    rows = draws.normals(N, D * K)
    centred = rows - rows.mean(1, keepdims=True)
    chosen = np.array(list(itertools.combinations(range(N), BATCH)))
    means = centred[:, chosen].mean(2)
    found = (means**2).sum(-1).mean(1) / (centred**2).sum(-1).mean(1)
    # Sums over 35 subsets of products of length 12.
    return Evidence(found, (N - BATCH) / (BATCH * (N - less)), tolerance=35 * D * K * EPS)


WIDE, NARROW, FEW, ETA, SETTLED = 6, 4, 5, 0.4, 40


def _stationary(draws: Draws, *, wrong: bool) -> Evidence:
    """‖E‖² of full fine-tuning on fresh batches, after so many steps from Δ."""
    eta = ETA
    E = np.zeros((draws.trials, WIDE, NARROW))
    for t in range(SETTLED):
        X = draws.normals(FEW, WIDE, block=f"inputs, {t}")
        Z = NOISE * draws.normals(FEW, NARROW, block=f"noise, {t}")
        E = E - eta / FEW * X.swapaxes(1, 2) @ (X @ E - Z)
    law = predict.stochastic.stationary_error(
        d=WIDE, k=NARROW, batch=FEW, learning_rate=eta, noise_std=NOISE
    )
    if wrong:
        law = eta * NOISE**2 * WIDE * NARROW / FEW / (2 - eta * (1 + WIDE / FEW))
    # The start is forgotten at (1 − 2η + η²(12/5))^40 = 1e-9 of it.
    return ratios(torch.from_numpy((E**2).sum((1, 2))), law, SETTLES)


LARGE, OUT, TRUE, R, ROWS, STEPS, SIGMA = 30, 12, 2, 3, 6, 20, 0.2


def _law(draws: Draws, *, width: int) -> Evidence:
    """Runs of the reduced dynamics against runs that draw every row in full."""
    rate, b = 0.1, ROWS
    shift = np.eye(LARGE, TRUE) @ np.eye(OUT, TRUE).T
    A, B = 0.3 * draws.normals(LARGE, R), np.zeros((draws.trials, R, OUT))
    for t in range(STEPS):
        X = draws.normals(b, LARGE, block=f"inputs, {t}")
        W = X @ (A @ B - shift) - SIGMA * draws.normals(b, OUT, block=f"noise, {t}")
        J = X.swapaxes(1, 2) @ W / b
        A, B = A - rate * J @ B.swapaxes(1, 2), B - rate * A.swapaxes(1, 2) @ J
    run = simulate_online(
        d=width, k=OUT, rank=R, true_rank=TRUE, batch=b, learning_rate=rate, steps=STEPS,
        init_std=0.3, noise_std=SIGMA, every=STEPS, seeds=draws.seeds(),
    )  # fmt: skip
    norm = np.linalg.norm
    direct = {
        "risk": 0.5 * norm(A @ B - shift, axis=(1, 2)) ** 2,
        "‖A‖": norm(A, axis=(1, 2)),
        "‖UᵀA‖": norm(A[:, :TRUE], axis=(1, 2)),
    }
    reduced = {"risk": run.risk[-1], "‖A‖": run.size[-1], "‖UᵀA‖": run.aligned[-1]}
    tensors = [{name: torch.from_numpy(v) for name, v in x.items()} for x in (direct, reduced)]
    return same_law(*tensors)


def _variance_claim(ensemble: str) -> Claim:
    factor, broken, _ = FACTORS[ensemble]
    name = "" if ensemble == "multi-response" else f"/{ensemble}"
    return Claim(
        id=f"sensing/online-moments{name}",
        title=f"Variance of a fresh batch's gradient, {ensemble}",
        reference="derivations, sensing 6.1",
        statement=f"E‖ĝ − E‖² = ([{factor}]‖E‖² + σ²dk)/b.",
        hypotheses=(f"fresh Gaussian {ensemble} measurements", "label noise of variance σ²"),
        how=f"d = {D}, k = {K}, b = {BATCH}, σ = {NOISE}; within {ALLOWANCES[ensemble]:.0%}.",
        kind="value",
        measure=lambda draws: _variance(draws, ensemble, wrong=False),
        mutant_statement=f"{broken} in place of {factor}",
        mutant=lambda draws: _variance(draws, ensemble, wrong=True),
        trials=200_000,
        smoke_trials=160_000,
        derivation="sensing 6.1",
        uses=("sensing/online-moments",) if ensemble == "dense" else (),
    )


CLAIMS = (
    *(_variance_claim(ensemble) for ensemble in FACTORS),
    Claim(
        id="sensing/online-moments/step",
        title="The mean of one step on a fresh batch",
        reference="derivations, sensing 6.1",
        statement=("E[E⁺] = E − η(EBᵀB + AAᵀE) + η²{E(AB)ᵀE + [AB(EᵀE + σ²I) + tr((AB)ᵀE)E]/b}."),
        hypotheses=("linear model", "fresh Gaussian rows"),
        how=(
            f"E⁺ along the term in b⁻¹, over it; d = {D}, k = {K}, r = {RANK}, b = {BATCH}, "
            f"η = {STRIDE}; within {OF_STEP:.0%}."
        ),
        kind="value",
        measure=lambda draws: _step(draws, trace=1.0),
        mutant_statement="without tr((AB)ᵀE)E",
        mutant=lambda draws: _step(draws, trace=0.0),
        trials=200_000,
        smoke_trials=100_000,
        derivation="sensing 6.1",
        uses=("sensing/online-moments", "lora-one/linear/one-step"),
    ),
    Claim(
        id="sensing/online-moments/subsets",
        title="Batches without replacement",
        reference="derivations, sensing 6.1",
        statement="The covariance of ĝ is (N − b)/(b(N − 1)) of that of one row's gradient.",
        hypotheses=("b of N rows without replacement",),
        how=f"All subsets of b = {BATCH} of {N} rows.",
        kind="identity",
        measure=lambda draws: _subsets(draws, less=1),
        mutant_statement="(N − b)/(bN)",
        mutant=lambda draws: _subsets(draws, less=0),
        trials=500,
        smoke_trials=20,
        derivation="sensing 6.1",
    ),
    Claim(
        id="sensing/stationary",
        title="Where full fine-tuning on fresh batches settles",
        reference="derivations, sensing 6.1",
        statement="E‖E‖² = ησ²dk/b/(2 − η(1 + (d + 1)/b)).",
        hypotheses=("linear model", "fresh Gaussian rows", "η < 2/(1 + (d + 1)/b)"),
        how=(
            f"{SETTLED} steps from Δ at η = {ETA}; d = {WIDE}, k = {NARROW}, b = {FEW}; "
            f"within {SETTLES:.0%}."
        ),
        kind="value",
        measure=lambda draws: _stationary(draws, wrong=False),
        mutant_statement="d in place of d + 1",
        mutant=lambda draws: _stationary(draws, wrong=True),
        trials=30_000,
        smoke_trials=15_000,
        derivation="sensing 6.1",
        uses=("sensing/online-moments",),
    ),
    Claim(
        id="sensing/online-law",
        title="Online descent by Gram matrices",
        reference="derivations, sensing 6.2",
        statement=(
            "Fresh Gaussian rows act through the Gram matrices of what meets A or B and Bartlett "
            "factors of the rest: O(r³) a step at any d, k and b."
        ),
        hypotheses=("linear model", "fresh isotropic Gaussian rows", "Gaussian noise"),
        how=(
            f"Three statistics of {STEPS} steps against rows drawn in full; d = {LARGE}, "
            f"k = {OUT}, r = {R}, r* = {TRUE}, b = {ROWS}, σ = {SIGMA}; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _law(draws, width=LARGE),
        mutant_statement="inputs 20 % wider",
        mutant=lambda draws: _law(draws, width=math.ceil(1.2 * LARGE)),
        trials=900,
        smoke_trials=250,
        explanation=NO_PROOF,
        derivation="sensing 6.2",
        uses=("lora-one/linear/rotation",),
        figure="fig_online.png",
    ),
)
