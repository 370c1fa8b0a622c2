"""The remark on He-initialisation after Theorem 3.2: how large ‖G‖_op has to be for α = d^{−1/2}.

Putting α = d^{−1/2} into α ≤ Cθ^{3κ/2} d^{−3κ/4−1/2} ‖G‖_op^{1/2} gives
‖G‖_op ≥ C⁻²θ^{−3κ} d^{3κ/2}: the power 3κ/2, where the text has 3κ/4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.core.randomness import generator
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

# Powers of d in ‖G‖_op, over κ: in the text, and by the theorem's own α.
TEXT, THEOREM = 0.75, 1.5
WIDTHS = np.geomspace(1e2, 1e6, 5)
EPS = np.finfo(np.float64).eps


def theorem_alpha(d: ArrayLike, kappa: ArrayLike, theta: ArrayLike, size: ArrayLike) -> np.ndarray:
    """θ^{3κ/2} d^{−3κ/4−1/2} ‖G‖_op^{1/2}, without its constant.

    >>> float(theorem_alpha(100.0, 2.0, 0.1, 1e6).round(12))
    0.0001
    """
    d, kappa, theta, size = (np.asarray(v, dtype=float) for v in (d, kappa, theta, size))
    return theta ** (1.5 * kappa) * d ** (-0.75 * kappa - 0.5) * size**0.5


def _allowed(draws: Draws, *, power: float) -> Evidence:
    """Exponent in d of d^{−1/2} over the theorem's α at ‖G‖_op = d^{power·κ}, promised ≤ 0."""
    rng = generator(draws.seeds()[0], "He")
    kappa, theta = rng.uniform(1, 10, draws.trials), rng.uniform(0.01, 0.5, draws.trials)
    d = WIDTHS[:, None]
    excess = d**-0.5 / theorem_alpha(d, kappa, theta, d ** (power * kappa))
    slopes = stats.slopes(np.log(WIDTHS), np.log(excess))
    numbers = {"mean of the exponent over κ": float((slopes / kappa).mean())}
    # Logarithms of size up to 3κ ln d, each good to a few eps of that.
    tolerance = 64 * EPS * (3 * kappa * np.log(WIDTHS[-1]))
    return Evidence(slopes, 0.0, tolerance=tolerance, numbers=numbers)


RATE, RANK, RATIO, OUTPUTS, STEPS = 0.25, 8, 16, 8, 60
DIMENSIONS = (300, 1000, 3000)


def _improves(draws: Draws, *, promised: float) -> Evidence:
    """Exponent in d of the best alignment at α = d^{−1/2}, ‖Δ‖_op = d^{3/4}, η = RATE/‖Δ‖_op."""
    best, numbers = [], {}
    for d in DIMENSIONS:
        size, seeds = float(d) ** TEXT, draws.seeds(block=d)
        problem = sample_linear_matrix_free(
            d=d, k=OUTPUTS, true_rank=1, samples=RATIO * d, spectrum=(size,), seeds=seeds
        )
        run = simulate(
            problem, "lora", rank=RANK, learning_rate=RATE / size, steps=STEPS, seeds=seeds,
            init_std=float(d) ** -0.5, record=("left_alignment",),
        )  # fmt: skip
        best.append(np.nanmin(run["left_alignment"].numpy(), axis=0))
        numbers[f"mean of the best alignment at d = {d}"] = float(best[-1].mean())
    slopes = stats.slopes(np.log(DIMENSIONS), np.log(np.stack(best)))
    numbers["mean exponent"] = float(slopes.mean())
    return Evidence(slopes, promised, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/theorem-3.2/he-initialisation",
        title="He-initialisation meets the theorem where ‖G‖_op ≥ Ω(d^{3κ/4})",
        reference="the remark on He-initialisation after Theorem 3.2",
        statement=(
            "With ‖G‖_op = d^{3κ/4}, α = d^{−1/2} is within a constant of the theorem's "
            "θ^{3κ/2} d^{−3κ/4−1/2} ‖G‖_op^{1/2}: the exponent of their ratio in d is at most 0."
        ),
        hypotheses=("κ ≥ 1, 0 < θ < 1",),
        how="The two formulas at widths d growing in decades, κ and θ drawn uniformly.",
        kind="bound",
        measure=lambda draws: _allowed(draws, power=TEXT),
        mutant_statement="with ‖G‖_op = d^{κ/2}",
        mutant=lambda draws: _allowed(draws, power=0.5),
        trials=200,
        smoke_trials=20,
        expected=Finding.VIOLATED,
        explanation=(
            "By the theorem's own α the condition is ‖G‖_op ≥ Ω(d^{3κ/2}), the square of the "
            "text's; see the next claim. That is no proof that runs need so much: see "
            "lora-one/theorem-3.2/he-runs."
        ),
        derivation="3.6",
        uses=("lora-one/theorem-3.2",),
    ),
    Claim(
        id="lora-one/theorem-3.2/he-corrected",
        title="It does where ‖G‖_op ≥ Ω(d^{3κ/2})",
        reference="the remark on He-initialisation after Theorem 3.2, corrected",
        statement=(
            "With ‖G‖_op = d^{3κ/2}, α = d^{−1/2} is within a constant of the theorem's α: the "
            "exponent of their ratio in d is at most 0."
        ),
        hypotheses=("κ ≥ 1, 0 < θ < 1",),
        how="The two formulas at widths d growing in decades, κ and θ drawn uniformly.",
        kind="bound",
        measure=lambda draws: _allowed(draws, power=THEOREM),
        mutant_statement="with ‖G‖_op = d^{1.4κ}",
        mutant=lambda draws: _allowed(draws, power=1.4),
        trials=200,
        smoke_trials=20,
        derivation="3.6",
        uses=("lora-one/theorem-3.2",),
    ),
    Claim(
        id="lora-one/theorem-3.2/he-runs",
        title="Runs ask for less: at d^{3/4} and κ = 1 the alignment improves with d",
        reference="the remark on He-initialisation after Theorem 3.2; the exponent is ours",
        statement=(
            "At α = d^{−1/2}, κ♮ = 1, fixed N/d and ‖Δ‖_op = d^{3/4}, "
            "min_t ‖U_{r*,⊥}(G)ᵀU_{r*}(A_t)‖_op decreases as d grows."
        ),
        hypotheses=("linear model", "LoRA-init, GD with η ~ 1/‖G‖_op", "r ≥ 2r*"),
        how=(
            f"Exact-law instances at N = {RATIO}d, d from {DIMENSIONS[0]} to {DIMENSIONS[-1]}, "
            f"one direction, so that κ = κ♮, r = {RANK}, η‖Δ‖_op = {RATE:g}, {STEPS} steps; slope "
            "in log–log per series of instances."
        ),
        kind="bound",
        measure=lambda draws: _improves(draws, promised=0.0),
        mutant_statement="at least as fast as d^{−1/4}, its limit, at these widths",
        mutant=lambda draws: _improves(draws, promised=-0.25),
        trials=24,
        smoke_trials=8,
        explanation=(
            "(A, B, Δ, η) → (sA, sB, s²Δ, η/s²) leaves the alignment as it is, so it depends on "
            "α²/‖Δ‖_op and, where small, is (α²d/‖Δ‖_op)^{1/3}, as in "
            "lora-one/theorem-3.2/alignment-in-d: at "
            "α = d^{−1/2} any growth of ‖G‖_op improves it. Both the text's power and the "
            "theorem's are sufficient here, neither is needed."
        ),
        derivation="3.6",
        uses=("lora-one/theorem-3.2",),
    ),
)
