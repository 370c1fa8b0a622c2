"""Several gated layers fitted at once: where the theorem's hypotheses on the gates hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.population import EPS, gaussian, near, population, spectrum
from loraone_theory.methods.rules.preconditioned import preconditioned

D, K, RANK, KAPPA, ETA = 5, 5, 2, 2.0, 2 / 3
GATES, ROWS, MANY, CHUNK = 3, 20_000, 800_000, 200_000
DELTA, CROSS, START, SIZE, SHARE, TIGHT = 0.01, 0.12, 0.1, 1.5, 0.5, 1.1
LEVEL = 1e-8


def _grams(u: Tensor, rows: int, seeds: Sequence[int]) -> Tensor:
    """(2/N) XᵀD_iD_jX for gates D_i = diag(1[Xu_i ≥ 0]), u (n, d, P): (n, P, P, d, d)."""
    whole = []
    for i, seed in enumerate(seeds):
        total = torch.zeros(u.shape[-1], u.shape[-1], D, D, dtype=u.dtype)
        for block in range(-(-rows // CHUNK)):
            X = gaussian(min(CHUNK, rows), D, (seed,), f"X {block}")[0]
            open_ = (X @ u[i] >= 0).to(u.dtype)
            gated = open_[:, :, None] * X[:, None, :]
            flat = gated.flatten(1)
            total += (flat.mT @ flat).unflatten(0, (-1, D)).unflatten(-1, (-1, D)).transpose(1, 2)
        whole.append(2 * total / rows)
    return torch.stack(whole)


def _gated(draws: Draws, *, opposite: bool, share: float) -> Evidence:
    """Largest ‖E_t‖ of any gate over (1 − share·η)ᵗ·0.15σ_r, all layers stepping at once.

    `simulate` trains one pair (A, B) in a run, and runs know nothing of each other; here the
    gradients of one layer hang on the pairs of all. So the library's rule is called step by step.
    """
    seeds = draws.seeds()
    rows = MANY if opposite else ROWS
    u = gaussian(D, 1 if opposite else GATES, seeds, "gates")
    u = torch.cat([u, -u], -1) if opposite else u
    G, gates = _grams(u, rows, seeds), u.shape[-1]
    each = [
        population(D, K, spectrum(KAPPA, RANK), tuple(seed + g for seed in seeds))
        for g in range(gates)
    ]
    starts = [near(of, START, tuple(seed + g for seed in seeds)) for g, of in enumerate(each)]
    true = torch.stack([of.problem.shift.dense() for of in each], 1)
    A, B = (torch.stack(list(parts), 1) for parts in zip(*starts, strict=True))
    rule = preconditioned(ETA)
    state = rule.init((A, B))
    steps = math.ceil(math.log(LEVEL) / math.log(1 - share * ETA))
    worst = torch.zeros(len(seeds), dtype=torch.float64)
    for t in range(steps + 1):
        E = A @ B - true
        size = torch.linalg.matrix_norm(E).amax(-1)
        bound = SIZE * START * (1 - share * ETA) ** t
        worst = torch.maximum(worst, torch.nan_to_num(size / bound, nan=torch.inf))
        pull = torch.einsum("nijab,njbk->niak", G, E)
        (A, B), state = rule.update((A, B), (pull @ B.mT, A.mT @ pull), state)
    return _judged(G, worst)


def _judged(G: Tensor, worst: Tensor) -> Evidence:
    """The evidence, with the hypotheses looked at: δ of every gate, and the cross terms."""
    gates = G.shape[1]
    eye = torch.eye(D, dtype=G.dtype)
    norms = torch.linalg.matrix_norm(G, ord=2)
    own = torch.stack([torch.linalg.matrix_norm(G[:, i, i] - eye, ord=2) for i in range(gates)])
    delta = own.amax(0)
    off = (norms * (1 - torch.eye(gates, dtype=G.dtype))).amax((-2, -1))
    # All Δ_i have one spectrum, so that ‖Δ_i‖/‖Δ_j‖ = 1.
    limit = min(DELTA / gates, CROSS / (7 * gates * (gates + 1)))
    inside = (delta <= DELTA) & (off <= limit)
    numbers = {
        "largest δ": float(delta.max()),
        "smallest cross term": float(off.min()),
        "limit of cross terms": limit,
        "largest ratio to the bound": float(worst.max()),
    }
    return Evidence(
        worst.numpy(),
        1.0,
        inside=inside.numpy(),
        tolerance=4 * D * EPS * KAPPA / (LEVEL * SIZE * START),
        numbers=numbers,
    )


READ = "Zhang, Pilanci, arXiv 2402.02347, Theorem 7.4 (read)"
ISOMETRY = f"‖(2/N)XᵀD_iX − I‖ ≤ {DELTA:g}: isometry of a left factor is that, at every rank"
TERMS = (
    f"(2/N)‖XᵀD_iD_jX‖ ≤ min({DELTA:g}‖Δ_i‖/(P‖Δ_j‖), {CROSS:g}/(7P(P + 1))), looked at in each "
    "draw"
)
STATEMENT = (
    f"From a start within {START:g}σ_r, η = {ETA:.3g} gives ‖E_t‖_F ≤ (1 − {SHARE:g}η)ᵗ·"
    f"{SIZE * START:g}σ_r for every gated layer."
)
CLAIMS = (
    Claim(
        id="riemannian/multi-gate",
        title="Random gates are outside its hypotheses",
        reference=READ,
        statement=STATEMENT,
        hypotheses=(ISOMETRY, TERMS),
        how=(
            f"P = {GATES} gates of half-spaces, u Gaussian, N = {ROWS}, d = k = {D}, r = {RANK}, "
            f"κ = {KAPPA:g}, until the bound is at {LEVEL:g} of its start."
        ),
        kind="bound",
        measure=lambda draws: _gated(draws, opposite=False, share=SHARE),
        mutant_statement=f"opposite gates, N = {MANY}, and (1 − {TIGHT:g}η)ᵗ",
        mutant=lambda draws: _gated(draws, opposite=True, share=TIGHT),
        trials=10,
        smoke_trials=2,
        expected=Finding.OUTSIDE_HYPOTHESES,
        explanation=(
            "Two half-spaces that are not opposite share rows, and then the cross term is of order "
            "one, against a limit of a few thousandths. It vanishes for u and −u alone, where the "
            "layers do not see each other."
        ),
        uses=("scaled-gd/sensing",),
    ),
    Claim(
        id="riemannian/multi-gate/opposite",
        title="It holds for two opposite gates",
        reference=READ,
        statement=STATEMENT,
        hypotheses=(ISOMETRY, TERMS, "gates 1[Xu ≥ 0] and 1[Xu < 0]"),
        how=(
            f"N = {MANY}, d = k = {D}, r = {RANK}, κ = {KAPPA:g}, until the bound is at {LEVEL:g} "
            "of "
            "its start."
        ),
        kind="bound",
        measure=lambda draws: _gated(draws, opposite=True, share=SHARE),
        mutant_statement=f"(1 − {TIGHT:g}η)ᵗ, a tenth faster than what is reached, (1 − η)ᵗ",
        mutant=lambda draws: _gated(draws, opposite=True, share=TIGHT),
        trials=6,
        smoke_trials=2,
        uses=("scaled-gd/sensing",),
    ),
)
