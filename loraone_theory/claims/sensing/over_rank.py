"""8: from LoRA-init a run beyond the true rank ends at the tangent map's slowest mode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import LIKE, population, tangent_matrix
from loraone_theory.claims.sensing.base import best
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, RANK, TRUE_RANK, COUNT = 8, 2, 1, 140
START, RATE, STEPS, EVERY = 0.15, 0.2, 2500, 50
# Relative sizes of 𝒜(E): where the last window of a run ends, far above rounding, and where it has
# to have come for the tangent map to describe it.
LOWEST, ARRIVED, WINDOW = 1e-11, 1e-6, 0.25
# Other modes that together are at most as large as the slowest where the window opens.
OTHERS = 1.0
# The linear model from a small start: λ*, r, α, steps, and the last of them, that the tail is of.
SPECTRUM, OVER, LITTLE, ENDED, SPAN = (1.0, 0.8), 4, 0.01, 140, 35


class Modes(NamedTuple):
    """Of (X, Y) ↦ 𝒜(XB + AY)/√m at the end of a run, the slowest first.

    Args:
        rates: (n, dof) the nonzero squared singular values, ascending.
        sizes: (n, dof) the parts of 𝒜(E)/√m along their left singular vectors.
    """

    rates: Tensor
    sizes: Tensor


def _modes(problem: SensingProblem, then: Factors, A: Tensor, B: Tensor) -> Modes:
    """Those at (A, B) with rank B = r*, and the residual of `then` along them."""
    J = tangent_matrix(problem.operator, Factors(A, B)) / COUNT**0.5
    dof = D * TRUE_RANK + RANK * D - RANK * TRUE_RANK
    U, S, _ = torch.linalg.svd(J, full_matrices=False)
    miss = (problem.operator.forward(then) - problem.targets) / COUNT**0.5
    parts = (U.mT @ miss[..., None])[..., 0]
    return Modes(S[:, :dof].flip(-1) ** 2, parts[:, :dof].flip(-1))


def _tail(draws: Draws, *, balance: bool) -> Evidence:
    """(1 − rate)/η of the tail, against μ_min, or against λ_min(AᵀA − BBᵀ)."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=D, true_rank=TRUE_RANK, measurements=COUNT, seeds=draws.seeds()
    )
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=STEPS, init_std=START,
        record=("loss",), every=EVERY, keep_factors=EVERY,
    )  # fmt: skip
    assert run.factors is not None  # they were asked for
    size = (2 * run["loss"]).sqrt().numpy()
    last = (size > LOWEST).sum(0) - 1
    first = ((1 - WINDOW) * last).astype(int)
    opens, ends = (np.take_along_axis(size, at[None], 0)[0] for at in (first, last))
    span = np.maximum((last - first) * EVERY, 1)
    tail = (1 - (ends / opens) ** (1 / span)) / RATE
    each = torch.arange(draws.trials)
    then = Factors(*(M[torch.from_numpy(first), each] for M in run.factors))
    A, B = run.final
    modes = _modes(problem, then, A, best(B, TRUE_RANK))
    rates, sizes = modes.rates.numpy(), modes.sizes.numpy()
    others = (sizes[:, 1:] ** 2).sum(-1) / sizes[:, 0] ** 2
    law = rates[:, 0]
    if balance:
        law = torch.linalg.eigvalsh(A.mT @ A - B @ B.mT)[:, 0].numpy()
    # They bend the slope by at most ln √(1 + others) of ln(opens/ends); the residual itself bends
    # the tangent map by a relative size of `opens`.
    bent = np.log1p(OTHERS) / 2 / np.log(opens / ends) + opens
    inside = (opens < ARRIVED) & (others <= OTHERS)
    numbers = {
        "mean tail / promised": float((tail / law)[inside].mean()),
        "largest allowance": float(bent[inside].max()),
    } if inside.any() else {}  # fmt: skip
    return Evidence(tail, law, inside, bent * rates[:, 0], numbers=numbers)


def _linear(draws: Draws, *, power: int) -> Evidence:
    """(1 − rate)/η of the tail from B₀ = 0 in the population, against λ_{r*}^`power`."""
    lam = LIKE.new_tensor(SPECTRUM)
    of = population(D, D, lam, draws.seeds())
    run = simulate(
        of.problem, "lora", rank=OVER, learning_rate=RATE, steps=ENDED,
        init_std=LITTLE, seeds=draws.seeds(), record=("error",), every=SPAN,
    )  # fmt: skip
    error = run["error"].numpy()
    tail = (1 - (error[-1] / error[-2]) ** (1 / SPAN)) / RATE
    # The balance of size δ <= 4dα² makes GD's slowest mode √(λ² + δ²/4) ± δ/2, so within δ; the
    # other modes are far below.
    return Evidence(tail, SPECTRUM[-1] ** power, tolerance=4 * D * LITTLE**2)


CLAIMS = (
    Claim(
        id="sensing/over-rank/linear",
        title="The linear model escapes the slow tail",
        reference="derivations, sensing 8",
        statement=(
            "Without noise and with B₀ = 0 a run of rank r > r* in the population ends at "
            "1 − ηλ*_{r*} per step, up to η times the size of α²: the true modes' own rate."
        ),
        hypotheses=("linear model", "N = ∞", "r > r*", "B₀ = 0", "α small"),
        how=(
            f"The last {SPAN} of {ENDED} steps; λ* = {listed(SPECTRUM)}, r = "
            f"{OVER}, d = k = {D}, α = {LITTLE:g}, η = {RATE}."
        ),
        kind="identity",
        measure=lambda draws: _linear(draws, power=1),
        mutant_statement="λ*² in place of λ*",
        mutant=lambda draws: _linear(draws, power=2),
        trials=50,
        smoke_trials=6,
        derivation="sensing 8",
        uses=("lora-one/theorem-3.1", "lora-one/linear/local-rates/gd"),
    ),
    Claim(
        id="sensing/over-rank",
        title="The tail beyond the true rank",
        reference="derivations, sensing 8",
        statement=(
            "From LoRA-init with r > r* the error ends at 1 − ημ_min per step, μ_min the least of "
            "the dr* + rk − rr* nonzero squared singular values of (X, Y) ↦ 𝒜(XB + AY)/√m where "
            "the run ends, with rank A = r and rank B = r*."
        ),
        hypotheses=(
            "r > r*",
            "B₀ = 0",
            "no noise",
            f"where the window opens ‖𝒜(E)‖/√m is below {ARRIVED:g}, and the slowest mode has half "
            "of its square at least",
        ),
        how=(
            f"The last {WINDOW:.0%} of the steps of a run down to {LOWEST:g}; what the other modes "
            "may bend there is allowed for. Dense, "
            f"d = k = {D}, r = {RANK}, r* = {TRUE_RANK}, m = {COUNT}, α = {START}, η = {RATE}."
        ),
        kind="identity",
        measure=lambda draws: _tail(draws, balance=False),
        mutant_statement="λ_min(AᵀA − BBᵀ) in place of μ_min, as for 𝒜*𝒜/m = I",
        mutant=lambda draws: _tail(draws, balance=True),
        trials=24,
        smoke_trials=6,
        explanation=(
            f"With others of {OTHERS:g} times the size of the slowest, in squares, where the "
            "window opens, the slope is bent by at most ln √2 of the logarithm of what is lost in "
            "it. Where the slowest mode is not yet the largest part, the tail is still that of the "
            "next; such draws are outside."
        ),
        derivation="sensing 8",
        uses=("lora-one/theorem-3.1", "sensing/local-rates/dense"),
    ),
)
