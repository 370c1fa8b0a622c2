"""How fast a method contracts near its solution, from its parametrisation and its rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.names import MethodName
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.rules import Local
from loraone_theory.predict import checks
from loraone_theory.predict.floors import pair_solution, target_rank
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.predict.rates import UNSEEN, Contraction, rates
from loraone_theory.predict.seen import Seen, seen
from loraone_theory.predict.tangent_map import RuleName
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.trials import trial_seeds

# Rule, scale, damping, ratio, momentum and rank -> what is found at the balanced best fit.
Known = dict[tuple[RuleName, float, float, float, float, int], Contraction]
# The weights that a rule states (Rule.local), and the rule of `rates` that has them.
RULES: dict[str, RuleName] = {"none": "gd", "preconditioned": "preconditioned", "full": "lora-pro"}
# A start whose imbalance exceeds this share of the solution's smallest singular value makes the
# factors that gradient descent ends with depend on the path.
BALANCED = 0.1

PATH = (
    "no rate: {name!r} starts with A^T A - B B^T of size {size:.2g} times the smallest singular "
    "value to reach, so where it ends depends on the path; pass solution=run.final"
)
HEAVY = (
    "no rate: momentum does not conserve A^T A - B B^T, so where a pair ends depends on the path; "
    "pass solution=run.final"
)
DAMPED = (
    "damped: the rate depends on how AB is split; A^T A = B B^T is taken, which damped steps keep "
    "only nearly; pass solution=run.final for the factors reached"
)
TRAVELLED = (
    "A^T A = B B^T is taken, which steps of finite size keep to O(eta^2) only; pass "
    "solution=run.final for the factors reached"
)
SUBLINEAR = "no rate: r > r*, where a fixed damping is sublinear and A's start is kept"
AT_REST = "r > r*: superfluous directions are taken to be at rest"
NO_GAP = "no rate: the target has no gap between singular values r and r + 1"
KEPT = (
    "no rate: A starts with a part off the inputs' row space, which never moves and stays in "
    "(A^T A)^-1; pass solution=run.final"
)


def contraction(
    problem: LinearProblem,
    method: MethodName | str | Method,
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
    - pairs: those of `rates` at the balanced best fit of rank r. With r > r* the superfluous
      directions are taken to be at rest.
    - LoRA+ with ratio λ: √λ times GD's, at the solution with λAᵀA = BBᵀ.

    Label noise makes a shift of full rank, Δ̂ = Δ + C†Z̃, of which a pair reaches its best fit.

    Factors are taken to be balanced as the flow of GD leaves them. Entrywise rules, AdaLoRA,
    momentum on pairs (which conserves no balance) and starts far from balance have NaN and a note;
    the latter two have numbers where the solution is handed in.

    Args:
        problem: batch (...), linear.
        method: a name in `METHODS` or a Method.
        rank: r.
        seeds: as for `simulate`.
        damping: λ of rules with inverses.
        solution: the method's own A (..., d, r), B (..., r, k) at a stationary point, for pairs;
            directions in which AB does not change to first order, as superfluous ones that have
            died out, are at rest and left out.

    Returns:
        A Contraction of the problem's batch shape, with seeds where the start depends on them.

    Raises:
        TypeError: the problem is not linear.
        ValueError: arguments out of range; a `solution` that is not stationary.

    Reference: derivations 3.7, 3.9; App. C.2, C.3.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=12, k=10, true_rank=2, samples=10**6)
    >>> contraction(problem, "lora-one-preconditioned", rank=2).best_step.round(decimals=2)
    tensor([0.6700], dtype=torch.float64)
    """
    checks.linear(problem)
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    damping = validate.number("damping", damping)
    chosen, drawn = methods.get(method, rank), trial_seeds(problem, seeds)
    if solution is not None:
        d, k = problem.d, problem.k
        solution = checked(
            "solution", solution, d=d, k=k, rank=rank, like=problem.like, batch=problem.batch_shape
        )
        if not chosen.parametrisation.is_pair:
            raise ValueError(
                f"a solution is one of methods that train A and B; {chosen.name!r} trains "
                f"{chosen.parametrisation.name}; leave solution out"
            )
    return local_contraction(problem, chosen, rank, drawn, damping, solution, {})


def local_contraction(
    problem: LinearProblem,
    chosen: Method,
    rank: int,
    drawn: tuple[int, ...],
    damping: float,
    solution: Factors | None,
    known: Known,
) -> Contraction:
    """The same of arguments that are checked.

    Args:
        problem, chosen, rank, drawn, damping, solution: as for `contraction`.
        known: what was found before for this problem, for methods that end alike; added to.
    """
    problem, local = noiseless(problem), chosen.facts.local
    if local is None:
        return _nothing(problem.like, problem.batch_shape, chosen.facts.no_rate)
    beta = local.momentum
    start = chosen.init(problem, rank, drawn)
    if chosen.parametrisation.is_pair:
        return _pair(problem, chosen, local, start, rank, damping, solution, known)
    if start.frozen:
        values = _core(problem, start.frozen[0], start.frozen[1], chosen.scale)
        return Contraction(values, beta)
    part = seen(problem)
    spectrum = part.problem.covariance.spectrum("extremes")
    if part.basis is None:
        return Contraction(spectrum, beta)
    return Contraction(_rested(spectrum), beta, (UNSEEN,), moving=spectrum[..., 0])


def _nothing(like: Tensor, batch: torch.Size, *notes: str) -> Contraction:
    return Contraction(like.new_full((*batch, 2), math.nan), notes=notes)


def _rested(extremes: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(extremes[..., 0]), extremes[..., 1]], dim=-1)


def _core(problem: LinearProblem, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """The moving directions of R alone: with N < r part of it is at rest and unseen."""
    ends = []
    for values in (torch.linalg.svdvals(problem.covariance.half(A)), torch.linalg.svdvals(B)):
        rounding = max(problem.d, problem.k) * linalg.eps(values) * values[..., :1]
        least = torch.where(values > rounding, values, torch.inf).amin(-1)
        ends.append(torch.stack([least, values[..., 0]], dim=-1) ** 2)
    return scale**2 * ends[0] * ends[1]


def _pair(
    problem: LinearProblem,
    method: Method,
    local: Local,
    start: Start,
    rank: int,
    damping: float,
    solution: Factors | None,
    known: Known,
) -> Contraction:
    fitted = problem if start.offset is None else problem.with_offset(start.offset)
    rule, s = RULES[local.weights], method.scale

    def near_pair(place: LinearProblem, at: Factors) -> Contraction:
        given = {"scale": s, "damping": damping, "ratio": local.ratio, "momentum": local.momentum}
        return rates(place, at, rule=rule, **given)

    if solution is not None:
        return near_pair(fitted, solution)
    part = seen(fitted)
    reachable = target_rank(part.problem)
    at = pair_solution(part.problem, rank=min(rank, reachable))
    note = _missing(part, method, local, start, rank, reachable, damping, at)
    if note is not None:
        return _nothing(problem.like, fitted.batch_shape, note)
    notes: tuple[str, ...] = (AT_REST,) if rank > reachable else ()
    if rule != "gd" and damping > 0:
        notes += (DAMPED,)
    coloured = problem.population_covariance is not None
    if rule == "gd" and (rank < reachable or start.offset is not None or coloured):
        notes += (TRAVELLED,)
    # λAᵀA = BBᵀ at the balanced pair's A/λ^¼, Bλ^¼; rates() takes factors with sAB = T.
    size, split = s**-0.5, local.ratio**0.25
    split_at = Factors(size / split * at.A, size * split * at.B)
    # Without an offset the balanced best fit is the problem's, whatever the method starts from.
    key = (rule, s, damping, local.ratio, local.momentum, min(rank, reachable))
    near = known.get(key) if start.offset is None else None
    if near is None:
        near = near_pair(part.problem, split_at)
    if start.offset is None:
        known[key] = near
    if part.basis is not None:
        near = replace(near, extremes=_rested(near.extremes), moving=near.extremes[..., 0])
        notes += (UNSEEN,)
    return replace(near, notes=(*notes, *near.notes))


def _missing(
    part: Seen,
    method: Method,
    local: Local,
    start: Start,
    rank: int,
    reachable: int,
    damping: float,
    at: Factors,
) -> str | None:
    """What stands against a prediction of a pair from its start, or None."""
    (A, B), rule = start.trainable, RULES[local.weights]
    if rank > reachable and rule == "preconditioned" and (damping > 0 or bool(B.eq(0).all())):
        return SUBLINEAR
    if rank < reachable and not bool(_has_gap(part.problem, rank).all()):
        return NO_GAP
    if rule != "gd":
        free = rule == "lora-pro" and rank >= reachable and damping == 0
        if part.unseen(A) and not free:
            return KEPT
        if damping == 0:
            return None
    elif local.momentum > 0:
        return HEAVY
    size = imbalance(Factors(part.lower(A), B), local.ratio, method.scale, at, damping)
    return PATH.format(name=method.name, size=size) if size > BALANCED else None


def imbalance(start: Factors, ratio: float, scale: float, at: Factors, damping: float) -> float:
    """s‖λA₀ᵀA₀ − B₀B₀ᵀ‖_op over √λ·σ_min of the solution: the share of it that stays.

    Under a damping δ the flow keeps (a² + δ)/(b² + δ) of each direction: over σ_min of B₀B₀ᵀ + δI.
    """
    A, B = start
    gap = torch.linalg.matrix_norm(ratio * (A.mT @ A) - B @ B.mT, ord=2)
    smallest = torch.linalg.svdvals(at.B)[..., -1] ** 2
    if damping > 0:
        smallest = scale * (torch.linalg.eigvalsh(B @ B.mT)[..., 0].clamp_min(0) + damping)
    return float((scale * gap / (ratio**0.5 * smallest)).max())


def _has_gap(problem: LinearProblem, rank: int) -> Tensor:
    T = problem.target
    R = torch.linalg.qr(T.B.mT, mode="r").R
    S = torch.linalg.svdvals(problem.covariance.half(T.A @ R.mT))
    return S[..., rank - 1] - S[..., rank] > 1e-6 * S[..., 0]
