"""How fast a method contracts near its solution, from its parametrisation and its rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.rules import Local
from loraone_theory.predict.floors import pair_solution
from loraone_theory.predict.hessian import Weights, hessian_extremes
from loraone_theory.predict.tangent import tangent_extremes
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.trials import trial_seeds

# A start whose imbalance exceeds this share of the solution's smallest singular value makes the
# factors that gradient descent ends with depend on the path.
BALANCED = 0.1
PATH = (
    "no rate: {name!r} starts with A^T A - B B^T of size {size:.2g} times the smallest singular "
    "value to reach, so where it ends depends on the path; pass solution=run.final"
)


@dataclass(frozen=True, eq=False)
class Contraction:
    """Near the solution mode i of the residual is multiplied by 1 − ημ_i in each step.

    With momentum β the multipliers are the roots of z² − (1 + β − ημ_i)z + β.

    Args:
        extremes: (..., 2), the smallest and the largest μ; NaN where not predicted.
        momentum: β, 0 for rules without.
        notes: why a number is missing, or what it takes for granted.
    """

    extremes: Tensor
    momentum: float = 0.0
    notes: tuple[str, ...] = ()

    def rate(self, learning_rate: float | Tensor) -> Tensor:
        """The factor per step of the slowest mode, (...); unstable where it exceeds 1.

        Args:
            learning_rate: η, a number or (...).

        >>> Contraction(torch.tensor([1.0, 2.0])).rate(0.5)
        tensor(0.5000)
        """
        if isinstance(learning_rate, Tensor):
            eta: float | Tensor = learning_rate[..., None]
        else:
            eta = validate.number("learning_rate", learning_rate, positive=True)
        x = (1 + self.momentum - eta * self.extremes).abs()
        beats = x**2 < 4 * self.momentum
        real = (x + (x**2 - 4 * self.momentum).clamp_min(0).sqrt()) / 2
        return torch.where(beats, math.sqrt(self.momentum), real).amax(-1)

    @property
    def largest_stable_step(self) -> Tensor:
        """2(1 + β)/μ_max, (...)."""
        return 2 * (1 + self.momentum) / self.extremes[..., 1]

    @property
    def best_step(self) -> Tensor:
        """2(1 + β)/(μ_min + μ_max), with the fastest local rate at this β, (...)."""
        return 2 * (1 + self.momentum) / self.extremes.sum(-1)


def contraction(
    problem: LinearProblem,
    method: str | Method,
    *,
    rank: int,
    seeds: Sequence[int] | None = None,
    damping: float = 0.0,
    solution: Factors | None = None,
) -> Contraction:
    """The extreme μ of a method near the solution that it reaches.

    - full fine-tuning: the eigenvalues of Σ̂. LoRA-Pro where AB can equal Δ: the same, since
      P_A𝒢 + (I − P_A)𝒢P_B = 𝒢 on the row space of B.
    - A R B with A, B frozen: s² λ_i(AᵀΣ̂A) λ_j(BBᵀ).
    - pairs where AB can equal Δ: those of `tangent_extremes`, times s (preconditioned: s²). With
      r > r* the superfluous directions are taken to be at rest.
    - pairs where a residual stays (r < r*, or an offset): those of the Hessian in (A, B) between
      the roots of the rule's weights, without the r² directions along the solutions.
    - LoRA+ with ratio λ: √λ times GD's, at the solution with λAᵀA = BBᵀ.

    Factors are taken to be balanced as the flow leaves them; entrywise rules, AdaLoRA and starts
    far from balance have NaN and a note.

    Args:
        problem: batch (...).
        method: a name in `METHODS` or a Method.
        rank: r.
        seeds: as for `simulate`.
        damping: λ of preconditioned rules.
        solution: the method's own A (..., d, r), B (..., r, k) at a stationary point, for pairs.

    Returns:
        A Contraction of the problem's batch shape, with seeds where the start depends on them.

    Reference: derivations 3.7, 3.9; App. C.2, C.3.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=10**6)
    >>> contraction(problem, "lora-one-preconditioned", rank=2).best_step.round(decimals=2)
    tensor([0.6700], dtype=torch.float64)
    """
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    local = chosen.facts.local
    nothing = problem.like.new_full((*problem.batch_shape, 2), math.nan)
    if local is None:
        return Contraction(nothing, notes=(chosen.facts.no_rate,))
    start = chosen.init(problem, rank, trial_seeds(problem, seeds))
    notes: tuple[str, ...] = ()
    if chosen.parametrisation.is_pair:
        extremes, notes = _pair(problem, chosen, local, rank, start, damping, solution)
    elif start.frozen:
        extremes = _core(problem, start.frozen[0], start.frozen[1], chosen.scale)
    else:
        extremes = problem.covariance.spectrum("extremes")
    if problem.samples is not None and problem.samples < problem.d:
        notes += ("fewer samples than inputs: part of the error is at rest, so the rate is 1",)
    return Contraction(extremes, local.momentum, notes)


def _core(problem: LinearProblem, A: Tensor, B: Tensor, scale: float) -> Tensor:
    left = torch.linalg.svdvals(problem.covariance.half(A))[..., [-1, 0]] ** 2
    return scale**2 * left * torch.linalg.svdvals(B)[..., [-1, 0]] ** 2


def _pair(
    problem: LinearProblem,
    method: Method,
    local: Local,
    rank: int,
    start: Start,
    damping: float,
    solution: Factors | None,
) -> tuple[Tensor, tuple[str, ...]]:
    fitted = problem if start.offset is None else problem.with_offset(start.offset)
    s, ratio = method.scale, local.ratio
    gain = {"preconditioned": s**2, "full": 1.0, "none": s}[local.weights]
    nothing = problem.like.new_full((*fitted.batch_shape, 2), math.nan)
    notes: tuple[str, ...] = ()
    if solution is not None:
        at = Factors(s**0.5 * solution.A, s**0.5 * solution.B)
        return gain * hessian_extremes(fitted, at, _weigh(local, damping, ratio)), notes
    exact = fitted.target.rank <= rank
    if exact and rank > fitted.target.rank:
        if local.weights == "preconditioned" and (
            damping > 0 or bool(start.trainable[1].eq(0).all())
        ):
            note = "no rate: r > r*, where a fixed damping is sublinear and A's start is kept"
            return nothing, (note,)
        notes += ("r > r*: superfluous directions are taken to be at rest",)
    at = pair_solution(fitted, rank=rank)
    if local.weights == "none":
        size = _imbalance(start, ratio, s, at)
        if size > BALANCED:
            return nothing, (PATH.format(name=method.name, size=size),)
        gain *= ratio**0.5
    if not exact and not bool(_has_gap(fitted, rank).all()):
        return nothing, ("no rate: the target has no gap between singular values r and r + 1",)
    if exact and local.weights == "full":
        return problem.covariance.spectrum("extremes").expand(*fitted.batch_shape, 2), notes
    if exact and damping == 0 and fitted.offset is None:
        kind = "preconditioned" if local.weights == "preconditioned" else "gd"
        return gain * tangent_extremes(fitted, kind, solution=at), notes  # type: ignore[arg-type]
    return gain * hessian_extremes(fitted, at, _weigh(local, damping, 1.0)), notes


def _imbalance(start: Start, ratio: float, scale: float, at: Factors) -> float:
    """s‖λA₀ᵀA₀ − B₀B₀ᵀ‖_op over √λ·σ_min of the solution: the share of it that stays."""
    A, B = start.trainable
    gap = torch.linalg.matrix_norm(ratio * (A.mT @ A) - B @ B.mT, ord=2)
    smallest = torch.linalg.svdvals(at.B)[..., -1] ** 2
    return float((scale * gap / (ratio**0.5 * smallest)).max())


def _has_gap(problem: LinearProblem, rank: int) -> Tensor:
    T = problem.target
    R = torch.linalg.qr(T.B.mT, mode="r").R
    S = torch.linalg.svdvals(problem.covariance.half(T.A @ R.mT))
    return S[..., rank - 1] - S[..., rank] > 1e-6 * S[..., 0]


def _weigh(local: Local, damping: float, ratio: float) -> Callable[[Factors], Weights]:
    """The roots of the rule's weights at unbatched factors."""

    def root(M: Tensor, inverse: bool) -> Tensor:
        if not inverse:
            return torch.eye(M.shape[-1]).to(M)
        values, vectors = torch.linalg.eigh(M)
        return (vectors * (values + damping) ** -0.5) @ vectors.mT

    def weigh(at: Factors) -> Weights:
        inverse = local.weights != "none"
        right, left = root(at.B @ at.B.mT, inverse), root(at.A.mT @ at.A, inverse)
        return Weights(right, ratio**0.5 * left, outside=local.weights == "full")

    return weigh
