"""1.3: under label noise the rows of B are those of Ỹ, min(k, d) dimensions and no fewer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import haar
from loraone_theory.claims.sensing.base import EPS, half_square
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK, SAMPLES, NOISE, RATE, STEPS = 8, 14, 2, 3, 40, 0.5, 0.1, 12
SIZES: dict[str, Any] = {"d": D, "k": K, "true_rank": TRUE_RANK, "samples": SAMPLES}
# Method -> steps after which the rows span r, 2r and all of the dimensions.
GROWN = {"lora": (2, 3, STEPS), "lora-one": (1, 2, STEPS)}
# A direction counts where it has this share of the largest: new ones enter by the changes of a
# step, far above it, and rounding of some steps stays far below.
NEW = 1e-11


def _rows(problem: LinearProblem, name: str, rank: int, seeds: tuple[int, ...]) -> Tensor:
    """Rows of B_1 … B_T, (draw, T, r, k)."""
    run = simulate(
        problem, name, rank=rank, learning_rate=RATE, steps=STEPS, seeds=seeds, keep_factors=1,
        reduce="never", record=(),
    )  # fmt: skip
    assert run.factors is not None  # they were asked for
    return run.factors.B[1:].movedim(0, 1)


def _off(rows: Tensor, frame: Tensor) -> Tensor:
    """The share of the last B off the span of the frame's columns, one for each draw."""
    last = rows[:, -1]
    norm = torch.linalg.matrix_norm
    return norm(last - (last @ frame) @ frame.mT) / norm(last)


def _within(draws: Draws, *, left: int) -> Evidence:
    """B's share off row(Ỹ), of which the mutant leaves the last `left` dimensions out."""
    problem = sample_linear(noise_std=NOISE, seeds=draws.seeds(), **SIZES)
    frame = torch.linalg.svd(problem.answer, full_matrices=False).Vh[:, : D - left].mT
    shares = [_off(_rows(problem, name, RANK, draws.seeds()), frame) for name in GROWN]
    # Sums over d and r in every step, of matrices of condition number below 1e2.
    return Evidence(torch.cat(shares).numpy(), 0.0, tolerance=1e2 * STEPS * D * EPS)


def _growth(draws: Draws, *, most: int) -> Evidence:
    """Dimensions that the rows of B_1 … B_t span."""
    problem = sample_linear(noise_std=NOISE, seeds=draws.seeds(), **SIZES)
    found, promised = [], []
    for name, times in GROWN.items():
        rows = _rows(problem, name, RANK, draws.seeds())
        for i, t in enumerate(times):
            values = torch.linalg.svdvals(rows[:, :t].flatten(1, 2))
            found.append((values > NEW * values[:, :1]).sum(-1).double())
            expected = min(most, min(D, K) if t == STEPS else (i + 1) * RANK)
            promised.append(torch.full_like(found[-1], expected))
    return Evidence(torch.cat(found).numpy(), torch.cat(promised).numpy())


def _cut(draws: Draws, *, off_rows: float) -> Evidence:
    """Risks of the run in d columns and in all k; the mutant's have no part of Δ off row(Ỹ)."""
    problem = sample_linear(noise_std=NOISE, seeds=draws.seeds(), **SIZES)
    frame = torch.linalg.svd(problem.answer, full_matrices=False).Vh.mT
    shift = problem.shift.dense()
    missed = half_square(shift - (shift @ frame) @ frame.mT)
    options: dict[str, Any] = {
        "rank": RANK, "learning_rate": RATE, "steps": STEPS, "record": ("risk",), "every": STEPS,
    }  # fmt: skip
    found = []
    for name in GROWN:
        small, whole = (
            simulate(problem, name, reduce=how, seeds=draws.seeds(), **options)["risk"][-1]
            for how in ("auto", "never")
        )
        found.append((small - (1 - off_rows) * missed - whole) / whole)
    return Evidence(torch.cat(found).numpy(), 0.0, tolerance=1e3 * STEPS * K * EPS)


def _white(draws: Draws, *, of_shift: bool) -> Evidence:
    """B's share off the top right singular vectors of G at Σ̂ = I, the mutant's off row(Δ)."""
    seeds = draws.seeds()
    X = SAMPLES**0.5 * haar(SAMPLES, D, seeds, "X")
    U, V = (haar(n, TRUE_RANK, seeds, name) for n, name in ((D, "U"), (K, "V")))
    noise = NOISE * per_seed(lambda rng: normal(rng, SAMPLES, K), seeds, "noise", X)
    problem = LinearProblem.from_data(X, labels=X @ U @ V.mT + noise, shift=Factors(U, V.mT))
    G = problem.one_step_gradient().dense()
    top = torch.linalg.svd(G, full_matrices=False).Vh[:, :TRUE_RANK].mT
    rows = _rows(problem, "lora-one", TRUE_RANK, seeds)
    # Two singular frames at a gap of the size of λ* = 1 less the noise's edge, at least 1e-2.
    return Evidence(
        _off(rows, V if of_shift else top).numpy(), 0.0, tolerance=1e3 * STEPS * SAMPLES * EPS
    )


_SIZES = f"d = {D}, k = {K}, r = {RANK}, r* = {TRUE_RANK}, N = {SAMPLES}, σ = {NOISE}"
_BOTH = "LoRA-init and Spectral-init"

CLAIMS = (
    Claim(
        id="sensing/reduction",
        title="Under noise the rows of B are those of Ỹ",
        reference="derivations, sensing 1.3",
        statement="row(B_t) ⊂ row(Ỹ), Ỹ = CΔ + Z̃, which is row(G) for an invertible Σ̂.",
        hypotheses=("linear model", "label noise", "B₀ = 0 or Spectral-init"),
        how=f"B's share off row(Ỹ) after {STEPS} steps from {_BOTH}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _within(draws, left=0),
        mutant_statement="the span of all right singular vectors of Ỹ but the last",
        mutant=lambda draws: _within(draws, left=1),
        trials=100,
        smoke_trials=6,
        derivation="sensing 1.3",
        uses=("sensing/equivalence",),
    ),
    Claim(
        id="sensing/reduction/growth",
        title="Under noise there is no space of r + r* dimensions",
        reference="derivations, sensing 1.3",
        statement=(
            "The rows of B_1 … B_t span r more dimensions in every step, from LoRA-init r(t − 1) "
            "and from Spectral-init rt, up to min(k, d)."
        ),
        hypotheses=("linear model", "label noise", "B₀ = 0 or Spectral-init"),
        how=(
            f"Singular values above {NEW:g} of the largest where r, twice r and all are promised; "
            f"{_BOTH}, η = {RATE}; {_SIZES}."
        ),
        kind="identity",
        measure=lambda draws: _growth(draws, most=D),
        mutant_statement="at most r + r*",
        mutant=lambda draws: _growth(draws, most=RANK + TRUE_RANK),
        trials=100,
        smoke_trials=6,
        derivation="sensing 1.3",
        uses=("sensing/reduction",),
    ),
    Claim(
        id="sensing/reduction/columns",
        title="More outputs than inputs, cut",
        reference="derivations, sensing 1.3",
        statement=(
            "For k > d a run in the d dimensions of row(Ỹ) is the run in all k; its risk needs the "
            "part of Δ off them too."
        ),
        hypotheses=("linear model", "label noise", "k > d", "B₀ = 0 or Spectral-init"),
        how=f"Risks after {STEPS} steps with the reduction and without, {_BOTH}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _cut(draws, off_rows=1.0),
        mutant_statement="without the part of Δ off row(Ỹ)",
        mutant=lambda draws: _cut(draws, off_rows=0.0),
        trials=100,
        smoke_trials=6,
        derivation="sensing 1.3",
        uses=("sensing/reduction", "lora-one/linear/reduction"),
    ),
    Claim(
        id="sensing/reduction/white",
        title="White inputs decouple",
        reference="derivations, sensing 1.3",
        statement="At Σ̂ = I a run from Spectral-init keeps to the top r singular pairs of G.",
        hypotheses=("linear model", "Σ̂ = I", "Spectral-init"),
        how=(
            f"B's share off the right singular vectors of G after {STEPS} steps, X with "
            f"orthogonal columns; r = r* = {TRUE_RANK}, else {_SIZES}."
        ),
        kind="identity",
        measure=lambda draws: _white(draws, of_shift=False),
        mutant_statement="the right singular vectors of Δ in place of G's",
        mutant=lambda draws: _white(draws, of_shift=True),
        trials=100,
        smoke_trials=6,
        derivation="sensing 1.3",
        uses=("sensing/equivalence",),
    ),
)
