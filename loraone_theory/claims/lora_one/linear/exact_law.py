"""3.3: instances drawn without X have the law of instances drawn with it."""

from __future__ import annotations

import math

import numpy as np
import scipy  # loads its parts when they are first used
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.covariance import Tridiagonal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

D, K, TRUE_RANK, RANK, SAMPLES, STEPS = 24, 9, 3, 5, 60, 60
KAPPA = 3.0
# Probability of a false alarm of one comparison: 2 exp(−n D²) <= LEVEL for two samples of n.
LEVEL = 1e-6


def _statistics(problem: LinearProblem, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    run = simulate(
        problem,
        "lora",
        rank=RANK,
        learning_rate=0.1,
        steps=STEPS,
        seeds=seeds,
        init_std=0.1,
        record=("risk", "left_alignment"),
        every=STEPS,
        reduce="never",
    )
    ends = problem.covariance_spectrum()
    return {
        f"risk after {STEPS} steps": run["risk"][-1],
        f"alignment after {STEPS} steps": run["left_alignment"][-1],
        "sinΘ(U(Δ), U(G))": predict.plateau(problem),
        "smallest eigenvalue of Σ̂": ends[:, 0],
        "largest eigenvalue of Σ̂": ends[:, 1],
    }


def _wrong_diagonal(problem: LinearProblem, seeds: tuple[int, ...]) -> LinearProblem:
    """χ_N in every place of the diagonal instead of χ_N, χ_{N−1}, …"""
    c = per_seed(lambda rng: np.sqrt(rng.chisquare(SAMPLES, D)), seeds, "wrong", problem.like)
    assert isinstance(problem.covariance, Tridiagonal)
    covariance = Tridiagonal.from_bidiagonal(c / SAMPLES**0.5, problem.covariance.f)
    shift = Factors(problem.shift.A, problem.shift.B)
    return LinearProblem(covariance, shift, samples=SAMPLES, matrix_free=True)


def _same_law(draws: Draws, *, wrong: bool) -> Evidence:
    """Kolmogorov–Smirnov distances of five statistics, directly sampled against exact-law."""
    seeds, others = draws.seeds(), draws.seeds(block=1)
    with_X, free = (
        sample(d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, condition_number=KAPPA, seeds=some)
        for sample, some in ((sample_linear, seeds), (sample_linear_matrix_free, others))
    )
    if wrong:
        free = _wrong_diagonal(free, others)
    first, second = _statistics(with_X, seeds), _statistics(free, others)
    tests = {n: scipy.stats.ks_2samp(first[n].numpy(), second[n].numpy()) for n in first}
    distances = np.array([test.statistic for test in tests.values()])
    critical = math.sqrt(math.log(2 / LEVEL) / len(seeds))
    numbers = {f"KS p-value, {name}": float(test.pvalue) for name, test in tests.items()}
    return Evidence(
        lhs=distances,
        rhs=critical,
        numbers={**numbers, "largest distance": float(distances.max()), "allowed": critical},
    )


CLAIMS = (
    Claim(
        id="lora-one/linear/exact-law",
        aliases=("3.3",),
        title="Exact-law sampling",
        reference="derivations 3.3",
        statement=(
            "For Gaussian X, Σ̂ has the law of Q′TQ′ᵀ with T = CᵀC/N, C upper bidiagonal with "
            "independent χ_N, …, χ_{N−d+1} and χ_{d−1}, …, χ_1, and Q′ Haar; so the experiment is "
            "drawn from 2d − 1 chi variables and one Haar frame."
        ),
        hypotheses=("Gaussian inputs", "a rotation-equivariant rule and initialisation"),
        how=(
            f"d = {D}, N = {SAMPLES}, κ = {KAPPA:g}, GD from LoRA-init: the laws of five "
            "statistics from X "
            "and without X; each Kolmogorov–Smirnov distance against the value that equal laws "
            f"exceed with probability {LEVEL:g} (Dvoretzky–Kiefer–Wolfowitz)."
        ),
        kind="bound",
        measure=lambda draws: _same_law(draws, wrong=False),
        mutant_statement="χ_N in every place of the diagonal",
        mutant=lambda draws: _same_law(draws, wrong=True),
        trials=3000,
        smoke_trials=400,
        explanation="A test of equal laws cannot prove them equal; the derivation does.",
        derivation="3.3",
        uses=("lora-one/linear/rotation", "lora-one/linear/reduction"),
    ),
)
