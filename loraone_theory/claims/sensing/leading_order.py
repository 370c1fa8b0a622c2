"""3.1, 4 and 5: many dense measurements: one step's norm, the slowest mode, the isometry constant.

Two are Gaussian comparison inequalities, whose tails the draws are held to; the third is a limit
whose first correction cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import LIKE, gaussian
from loraone_theory.claims.sensing.base import balanced
from loraone_theory.problems.sensing import rip
from loraone_theory.problems.sensing.operators import Dense
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

# Of one step: unlike sizes, so that √d + √k is not a multiple of √(d + k).
TALL, FLAT, FEW, BEYOND = 120, 8, 300, 1.0
# Of the slowest mode.
D, RANK, PER_FREEDOM, BELOW, SHARE = 20, 2, 5, 0.8, 0.8
DOF = RANK * (2 * D - RANK)
# Of the isometry constant: c of m = c·(d + k); how the search is to end; ε of I + εH, which is
# positive definite while ε‖H‖, some 2ε√(dk), is below one.
SIDE, PLENTY, RESTARTS, SWEEPS, TOLERANCE, SMALL = 8, 60, 2, 40, 1e-4, 0.02


def _dense(draws: Draws, d: int, k: int, rank: int, m: int) -> SensingProblem:
    return sample_sensing(
        ensemble="dense", d=d, k=k, true_rank=rank, measurements=m, seeds=draws.seeds()
    )


def _within(found: Tensor, width: float, tail: float, **numbers: float) -> Evidence:
    """1-Lipschitz functions of Gaussian vectors, of mean at most `width`, against width + t."""
    promised = 1 - math.exp(-(tail**2) / 2)
    return Evidence(found.numpy(), width + tail, probability=promised, numbers=numbers)


def _norm(draws: Draws, *, width: float) -> Evidence:
    """(m/‖y‖)‖G − ‖y‖²/(m‖Δ‖²)·Δ‖_op, a Gaussian matrix off Δ."""
    problem = _dense(draws, TALL, FLAT, 1, FEW)
    assert problem.shift is not None
    shift, G = problem.shift.dense(), problem.operator.adjoint(problem.labels) / FEW
    size = problem.labels.norm(dim=-1)
    along = (size**2 / FEW)[:, None, None] * shift  # ‖Δ‖ = 1
    found = FEW / size * torch.linalg.matrix_norm(G - along, 2)
    whole = torch.linalg.matrix_norm(G - shift, 2) * FEW**0.5 / (TALL**0.5 + FLAT**0.5)
    numbers = {"mean ‖G − Δ‖_op over ‖Δ‖(√d + √k)/√m": float(whole.mean())}
    return _within(found, width, BEYOND, **numbers)


def _slowest(draws: Draws, *, share: float) -> Evidence:
    """√m(1 − √μ_min) of preconditioned descent."""
    m = PER_FREEDOM * DOF
    problem = _dense(draws, D, D, RANK, m)
    assert problem.shift is not None
    near = predict.rates(problem, balanced(problem.shift), rule="preconditioned").extremes[:, 0]
    edge = (1 - (DOF / m) ** 0.5) ** 2
    numbers = {"mean μ_min over (1 − √(dof/m))²": float(near.mean() / edge)}
    return _within(m**0.5 * (1 - near.clamp_min(0).sqrt()), share * DOF**0.5, BELOW, **numbers)


def _sides(operator: Dense) -> Tensor:
    """The mean of what a search finds on both sides."""
    found = rip.estimate(operator, 1, RESTARTS, sweeps=SWEEPS, tolerance=TOLERANCE)
    return (found.upper + found.lower) / 2


def _limit(draws: Draws) -> Tensor:
    """sup ⟨M, HM⟩ for symmetric Gaussian H, variance 1 and 2 on the diagonal; by I + εH."""
    n = SIDE**2
    g = gaussian(n, n, draws.seeds(block=1), "H")
    root = torch.linalg.cholesky(torch.eye(n).to(LIKE) + SMALL * (g + g.mT) / 2**0.5)
    return _sides(Dense(n**0.5 * root.mT.unflatten(-1, (SIDE, SIDE)))) / SMALL


def _isometry(draws: Draws, *, promised: Callable[[Draws, float], Tensor]) -> Evidence:
    """√m(δ⁺ + δ⁻)/2 over 2w."""
    m = PLENTY * 2 * SIDE
    operator = _dense(draws, SIDE, SIDE, 1, m).operator
    assert isinstance(operator, Dense)
    top, _ = rip.gordon_bounds(SIDE, SIDE, 1, m)
    width = m**0.5 * ((1 + top) ** 0.5 - 1)
    return Evidence(
        (m**0.5 * _sides(operator) / (2 * width)).numpy(),
        promised(draws, 2 * width).numpy(),
        tolerance=width**2 / m,
        numbers={"w": width},
    )


CLAIMS = (
    Claim(
        id="sensing/one-step/dense/norm",
        title="How far one step is off in the operator norm",
        reference="derivations, sensing 3.1",
        statement=(
            "G = ‖y‖²/(m‖Δ‖²)·Δ + (‖y‖/m)g, g Gaussian off Δ and independent of y; ‖g‖_op <= √d + "
            "√k + t with probability 1 − e^{−t²/2}. So ‖G − Δ‖_op ≈ ‖Δ‖(√d + √k)/√m."
        ),
        hypotheses=("dense Gaussian measurements", "no noise"),
        how=f"Δ of rank one; d = {TALL}, k = {FLAT}, m = {FEW}, t = {BEYOND:g}.",
        kind="probability",
        measure=lambda draws: _norm(draws, width=TALL**0.5 + FLAT**0.5),
        mutant_statement="√(d + k) in place of √d + √k",
        mutant=lambda draws: _norm(draws, width=(TALL + FLAT) ** 0.5),
        trials=200,
        smoke_trials=100,
        derivation="sensing 3.1",
    ),
    Claim(
        id="sensing/local-rates/slowest",
        title="The slowest mode of dense sensing",
        reference="derivations, sensing 5",
        statement=(
            "Preconditioned: √μ_min >= 1 − (√dof + t)/√m with probability 1 − e^{−t²/2}; near it, "
            "at (1 − √(dof/m))², μ_min is."
        ),
        hypotheses=("dense Gaussian measurements", "r = r*", "m > dof"),
        how=(
            f"d = k = {D}, r = {RANK}, m = {PER_FREEDOM} dof = {PER_FREEDOM * DOF}, t = {BELOW:g}."
        ),
        kind="probability",
        measure=lambda draws: _slowest(draws, share=1.0),
        mutant_statement=f"{SHARE:g}√dof in place of √dof",
        mutant=lambda draws: _slowest(draws, share=SHARE),
        trials=200,
        smoke_trials=100,
        derivation="sensing 5",
        uses=("sensing/local-rates/wishart",),
    ),
    Claim(
        id="sensing/isometry/many",
        title="The isometry constant of many dense measurements",
        reference="derivations, sensing 4",
        statement=(
            "(δ⁺ + δ⁻)/2 = s/√m·(1 + O(w²/m)) for the two sides of δ_r, s = E sup ⟨M, HM⟩ over the "
            "same M, H the symmetric Gaussian matrix on R^{dk}; s <= 2w, less for r < min(d, k)."
        ),
        hypotheses=("dense Gaussian measurements", "m ≫ r(d + k)"),
        how=(
            f"What a search finds at m = {PLENTY}r(d + k) and for H, over twice w; d = k = {SIDE}, "
            "rank one; within w²/m."
        ),
        kind="value",
        measure=lambda draws: _isometry(draws, promised=lambda of, width: _limit(of) / width),
        mutant_statement="s = 2w, as Gordon's bound has it",
        mutant=lambda draws: _isometry(draws, promised=lambda of, width: torch.ones(())),
        trials=400,
        smoke_trials=60,
        explanation="The search can only find lower bounds, for 𝒜 and for H alike.",
        derivation="sensing 4",
        figure="fig_rip.png",
        uses=("sensing/gordon", "sensing/gordon/below"),
    ),
)
