"""What several statements share: instances of Theorem 3.2 and their times, regimes of 4.2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

ASSUMED = "Assumption 4.1: ‖W̃‖_op/‖w̃_m‖ = O(1), max(λ*_{r*}, ‖Δ_m‖)/‖w̃_m‖ = O(1/(κr*))"

ETA, THETA, TRUE_RANK, RATIO, OUTPUTS = 0.5, 0.1, 4, 16, 16
# The theorem leaves its constants open. Judged with these: 1 in α and in the alignment, and this
# one in the time. The least one that would do is among the numbers.
TIME = 2.0


class Instance(NamedTuple):
    """A batch of problems with A₀ of unit entries, and what T3.2 says of each."""

    problem: LinearProblem
    unit: Factors
    alpha: Tensor  # (n,) θ^{3κ♮/2} d^{−3κ♮/4−1/2} ‖G‖_op^{1/2}
    growth: Tensor  # (n,) ln(1 + ηλ_{r*}(G))
    scale: np.ndarray  # (n,) ln(√d/θ)/growth
    eta: float


def sampled(
    d: int,
    seeds: tuple[int, ...],
    *,
    rank: int,
    kappa: float = 1.0,
    true_rank: int = TRUE_RANK,
    eta: float = ETA,
) -> Instance:
    """Exact-law instances at N = 16d."""
    problem = sample_linear_matrix_free(
        d=d, k=OUTPUTS, true_rank=true_rank, samples=RATIO * d, condition_number=kappa, seeds=seeds
    )
    unit = Factors(*methods.lora(init_std=1.0).init(problem, rank, seeds).trainable)
    return instance(problem, unit, d, eta)


def at_infinity(d: int, seeds: tuple[int, ...], *, rank: int) -> Instance:
    """Instances at N = ∞ and κ = 1, exactly in law, in r* + r of their d rows.

    With Σ̂ = I only span(U, A₀) moves. In a basis that starts with U, A₀ has r* Gaussian rows; the
    other d − r* rows, rotated among themselves, are the R factor of a Gaussian matrix: its diagonal
    is χ_{d−r*}, χ_{d−r*−1}, …, and above it the entries are Gaussian.
    """
    like = torch.empty(0, dtype=torch.float64)
    freedom = d - TRUE_RANK - np.arange(rank)
    inside = per_seed(lambda rng: normal(rng, TRUE_RANK, rank), seeds, "A0", like)
    outside = per_seed(lambda rng: np.triu(normal(rng, rank, rank), 1), seeds, "A0 outside", like)
    diagonal = per_seed(lambda rng: np.sqrt(rng.chisquare(freedom)), seeds, "A0 diagonal", like)
    A = torch.cat([inside, outside + torch.diag_embed(diagonal)], dim=-2)
    width = TRUE_RANK + rank
    eye = torch.eye(width, TRUE_RANK).to(A).expand(len(seeds), -1, -1)
    shift = Factors(eye, torch.eye(TRUE_RANK, OUTPUTS).to(A).expand(len(seeds), -1, -1))
    problem = LinearProblem.population(shift=shift)
    return instance(problem, Factors(A, A.new_zeros(len(seeds), rank, OUTPUTS)), d, ETA)


def instance(problem: LinearProblem, unit: Factors, d: int, eta: float) -> Instance:
    """What the theorem says of problems with A₀ of unit entries."""
    S = linalg.truncated_svd(problem.one_step_gradient(), problem.true_rank).S
    kappa = S[:, 0] / S[:, -1]
    alpha = THETA ** (1.5 * kappa) * d ** (-0.75 * kappa - 0.5) * S[:, 0].sqrt()
    growth = torch.log1p(eta * S[:, -1])
    scale = math.log(math.sqrt(d) / THETA) / growth.numpy()
    return Instance(problem, unit, alpha, growth, scale, eta)


def hitting_time(of: Instance, alpha: Tensor, *, steps: int, every: int = 1) -> np.ndarray:
    """First step at which the alignment is at most θ, log-linear between records; inf if none."""
    run = simulate(
        of.problem, "lora", rank=of.unit.rank, learning_rate=of.eta, steps=steps, every=every,
        initial=Factors(alpha[:, None, None] * of.unit.A, of.unit.B), record=("left_alignment",),
    )  # fmt: skip
    sines = np.log(run["left_alignment"].numpy())
    below = sines <= math.log(THETA)
    after = np.maximum(below.argmax(0), 1)
    ends = [np.take_along_axis(sines, (after - i)[None], 0)[0] for i in (1, 0)]
    high, low = (
        np.where(below.any(0), end, value) for end, value in zip(ends, (1, 0), strict=True)
    )
    share = (high - math.log(THETA)) / (high - low)
    start, stop = run.steps[after - 1], run.steps[after]
    return np.where(below.any(0), start + share * (stop - start), np.inf)


@dataclass(frozen=True)
class Regime:
    """Where the bound is tried; `ratio` = N/d, None for N = ∞.

    At η = 1/2 the envelope itself falls below LEVEL at t = 156: a run within it is there by then.
    """

    d: int
    k: int
    true_rank: int
    ratio: int | None
    shift: float = 0.1
    kappa: float = 1.0
    one_column: bool = False
    etas: tuple[float, ...] = (0.5,)
    steps: int = 156

    def problem(self, seeds: Sequence[int]) -> ReLUProblem | ReLUPopulation:
        """The instances; one column means Δ_m = 0 except for m = 0."""
        sizes = {
            "d": self.d, "k": self.k, "true_rank": self.true_rank, "relative_shift": self.shift,
            "condition_number": self.kappa, "seeds": seeds,
        }  # fmt: skip
        if self.ratio is None:
            return sample_relu_population(**sizes)  # type: ignore[arg-type]
        problem = sample_relu(**sizes, samples=self.ratio * self.d)  # type: ignore[arg-type]
        if not self.one_column:
            return problem
        row = torch.zeros(1, self.k, dtype=torch.float64)
        row[0, 0] = self.shift
        shift = Factors(problem.shift.A[..., :1], row.expand(len(seeds), 1, self.k))
        population = ReLUPopulation(pretrained=problem.pretrained, shift=shift)
        return replace(problem, population=population)

    def __str__(self) -> str:
        spread = "Δ in one column, " if self.one_column else f"r = r* = {self.true_rank}, "
        sizes = f"d = {self.d}, k = {self.k}, {spread}κ = {self.kappa:g}, c = {self.shift:g}"
        etas = ", ".join(f"{eta:g}" for eta in self.etas)
        return f"{sizes}, η = {etas}, N = " + ("∞" if self.ratio is None else f"{self.ratio}d")
