"""Sec. 2.3: the generalisation error is ‖E‖_F² in the linear model, and at most that for ReLU."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, normal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.relu.population import ReLUPopulation

D, K, TRUE_RANK, RANK = 8, 6, 2, 3
SIZES, SAMPLES, LESS = (0.01, 1.0, 100.0), 4000, 0.45
EPS = np.finfo(np.float64).eps


def cube(d: int) -> tuple[np.ndarray, np.ndarray]:
    """All points of {−1, 1}^d and their probabilities: isotropic, centred, sub-Gaussian."""
    points = np.array(list(itertools.product((-1.0, 1.0), repeat=d)))
    return points, np.full(len(points), 1 / len(points))


def cross(d: int) -> tuple[np.ndarray, np.ndarray]:
    """±√d e_i with equal probabilities: isotropic, centred, bounded."""
    points = np.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    return points, np.full(2 * d, 1 / (2 * d))


def quadrature(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-node Gauss–Hermite in d − 1 coordinates and three in one: exact for N(0, I), degree 3."""
    nodes, weights = np.array([-np.sqrt(3), 0, np.sqrt(3)]), np.array([1, 4, 1]) / 6
    rest, equal = cube(d - 1)
    points = np.array([[node, *point] for node in nodes for point in rest])
    return points, np.repeat(weights, len(rest)) * np.tile(equal, 3)


LAWS: tuple[Callable[[int], tuple[np.ndarray, np.ndarray]], ...] = (cube, cross, quadrature)


def _linear(draws: Draws, *, stretch: float) -> Evidence:
    """E‖x(W+Δ) − x(W+AB)‖² over every point of a finite law, relative to ‖AB − Δ‖_F².

    Twice the risk that runs record, too.
    """
    found, risk = [], []
    for seed in draws.seeds():
        rng = generator(seed, "generalisation")
        W, A, B = normal(rng, D, K), normal(rng, D, RANK), normal(rng, RANK, K)
        shift = normal(rng, D, TRUE_RANK) @ normal(rng, TRUE_RANK, K)
        square = np.linalg.norm(A @ B - shift) ** 2
        target = Factors(torch.from_numpy(shift), torch.eye(K, dtype=torch.float64))
        learned = Factors(torch.from_numpy(A), torch.from_numpy(B))
        recorded = 2 * float(LinearProblem.population(shift=target).risk(learned))
        found.append(abs(recorded / square - 1))
        for law in LAWS:
            X, probabilities = law(D)
            X = X * np.where(np.arange(D) == 0, stretch, 1.0)
            miss = X @ (W + shift) - X @ (W + A @ B)
            error = probabilities @ (miss**2).sum(1)
            risk.append(error / square)
            found.append(abs(risk[-1] - 1))
    # W + Δ and W + AB round by eps of W, about as large as E, in sums over d·k·2^d points that
    # numpy adds pairwise.
    return Evidence(
        np.array(found),
        0.0,
        tolerance=EPS * D * K * 8,
        numbers={"mean ratio": float(np.mean(risk))},
    )


def _relu(draws: Draws, *, factor: float) -> Evidence:
    """E‖y − ŷ‖² over ‖AB − Δ‖_F² in closed form, and sampled as a check of the closed form."""
    ratios: list[float] = []
    scores: list[float] = []
    for size in SIZES:
        for seed in draws.seeds():
            rng = generator(seed, f"ReLU {size}")
            W, A, B = normal(rng, D, K), normal(rng, D, RANK), normal(rng, RANK, K)
            W[:, 0] = -A @ B[:, 0]  # a dead column: w' = 0
            shift = size * normal(rng, D, TRUE_RANK) @ normal(rng, TRUE_RANK, K)
            shift[:, 1] = -2 * W[:, 1]  # opposite to w
            target = Factors(torch.from_numpy(shift), torch.eye(K, dtype=torch.float64))
            problem = ReLUPopulation(pretrained=torch.from_numpy(W), shift=target)
            learned = Factors(torch.from_numpy(A), torch.from_numpy(B))
            whole = float(np.linalg.norm(A @ B - shift) ** 2)
            ratios.append(2 * float(problem.risk(learned)) / whole)
            if len(scores) < 30:
                X = normal(rng, SAMPLES, D)
                miss = np.maximum(X @ (W + shift), 0) - np.maximum(X @ (W + A @ B), 0)
                sampled = (miss**2).sum(1) / whole
                scores.append((sampled.mean() - ratios[-1]) / (sampled.std() / np.sqrt(SAMPLES)))
    numbers = {
        "largest ratio": max(ratios),
        "least ratio": min(ratios),
        f"largest |z| of {SAMPLES} samples against the closed form": float(np.abs(scores).max()),
    }
    # The closed form subtracts at most half of its first term, so it keeps all digits but one.
    return Evidence(np.array(ratios), factor, tolerance=16 * EPS, numbers=numbers)


CLAIMS = (
    Claim(
        id="lora-one/section-2.3",
        aliases=("Sec. 2.3",),
        title="The generalisation error is ‖E‖_F² in the linear model",
        reference="Section 2.3",
        statement="E‖y − ŷ‖² = ‖AB − Δ‖_F² for a fresh isotropic x.",
        hypotheses=("linear model", "E x = 0, E xxᵀ = I"),
        how=(
            f"The expectation as a finite sum, d = {D}, k = {K}, r = {RANK}: all sign vectors, "
            "the points ±√d e_i, and a Gauss–Hermite product rule, which is exact for Gaussian x; "
            "and the risk that runs record, twice."
        ),
        kind="identity",
        measure=lambda draws: _linear(draws, stretch=1.0),
        mutant_statement="isotropy dropped: the first input 5 % larger",
        mutant=lambda draws: _linear(draws, stretch=1.05),
        trials=200,
        smoke_trials=20,
        explanation="Only E xxᵀ = I matters, which is why three different laws agree.",
    ),
    Claim(
        id="lora-one/section-2.3/relu",
        aliases=("Sec. 2.3/ReLU",),
        title="The generalisation error is at most ‖E‖_F² for ReLU",
        reference="Section 2.3",
        statement="E‖relu(x(W+Δ)) − relu(x(W+AB))‖² ≤ ‖AB − Δ‖_F² for x ~ N(0, I).",
        hypotheses=("ReLU model", "x ~ N(0, I)"),
        how=(
            f"Closed form at d = {D}, k = {K}, shifts of size {listed(SIZES)}, one dead column and "
            f"one target opposite to its weight; {SAMPLES} samples confirm the closed form."
        ),
        kind="bound",
        measure=lambda draws: _relu(draws, factor=1.0),
        mutant_statement=f"the constant {LESS:g} in place of 1, where 1/2 is reached",
        mutant=lambda draws: _relu(draws, factor=LESS),
        trials=200,
        smoke_trials=20,
        explanation="Loose by a factor of two: the ratio lies between 1/4 and 1/2.",
        derivation="5.2",
        uses=("lora-one/relu/lemma-b",),
    ),
)
