"""The least loss of noisy measurements near the true shift, by Newton and Gauss–Newton steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.iterative import conjugate_gradients
from loraone_theory.core.names import MethodName
from loraone_theory.methods import Method
from loraone_theory.predict.exact import fits_exactly
from loraone_theory.problems.sensing.problem import SensingProblem

STEPS = 100  # the most
PRODUCTS = 40  # of conjugate gradients in a step of Gauss–Newton
CURVED = 150  # in one of Newton, whose form is flat where the next singular value is near
ENTRIES = 10_000  # d·k up to which full matrices are fitted
EXCHANGES = 8  # starts below the true rank, beside its own best part and G's


@dataclass(frozen=True, eq=False)
class Fit:
    """A minimiser of the loss among matrices of rank r.

    Args:
        at: balanced factors of it, batch (...).
        loss: (...), NaN where none was found.
    """

    at: Factors
    loss: Tensor


def best_fit(problem: SensingProblem, rank: int) -> Fit:
    """The minimiser of the loss near the true target T = Δ + offset, of rank r.

    Steps go from the best rank-r part of T; below its rank from parts of T with one of the leading
    directions in exchange for a later one and from the best part of G too. Beyond its rank the
    fit of that rank comes first, and from it with some of the leading directions of the gradient
    that is left there, and from the best part of G. The lowest end is taken. A step solves least
    squares over the tangent space {XVᵀ + UYᵀ} at the present M, with the bend of the matrices of
    rank r (Newton) where that lowers the loss, else without it (Gauss–Newton), and takes the best
    rank-r part. An instance is done once its loss changes by rounding. That no other minimum lies
    lower is not proved.

    Args:
        problem: batch (...), with a known Δ.
        rank: r.

    Returns:
        A Fit of the problem's batch shape; `problem.risk(fit.at)` is what its noise costs.

    Raises:
        TypeError: another problem than matrix sensing.
        ValueError: Δ is not known; a rank that does not fit.

    Reference: derivations of sensing, 3.1.

    >>> from loraone_theory.problems.sensing.sampling import sample_sensing
    >>> made = {"ensemble": "dense", "d": 5, "k": 4, "true_rank": 1, "measurements": 400}
    >>> noisy = sample_sensing(**made, noise_std=0.1)
    >>> losses = [float(best_fit(noisy, rank).loss) for rank in (1, 2, 3)]
    >>> losses[0] > losses[1] > losses[2]
    True
    """
    validate.instance("problem", problem, SensingProblem, "predict.pair_solution is the linear one")
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    target = problem.target
    if target is None:
        raise ValueError("a fit near the true shift needs it; pass shift=Δ when making the problem")
    fit = _descended(problem, _cut(target, min(rank, target.rank)))
    if rank == target.rank:
        return fit
    if rank < target.rank:  # near T there may be several, most of all where λ_r = λ_{r+1}
        starts = [_best_part(problem, rank), *_exchanged(target, rank)]
        fits = [fit, *(_descended(problem, start) for start in starts)]
    else:
        fits = [_descended(problem, start) for start in _wider(problem, fit.at, rank)]
    least = fits[0]
    for other in fits[1:]:
        lower = (other.loss < least.loss) | least.loss.isnan()
        least = Fit(_chosen(lower, other.at, least.at), torch.where(lower, other.loss, least.loss))
    return least


def _chosen(where: Tensor, one: Factors, other: Factors) -> Factors:
    return Factors(
        *(torch.where(where[..., None, None], *pair) for pair in zip(one, other, strict=True))
    )


def _descended(problem: SensingProblem, M: Factors) -> Fit:
    """The minimum that steps from M come to."""
    batch = problem.batch_shape
    loss = problem.loss(M).expand(batch)
    found = torch.zeros(batch, dtype=torch.bool, device=problem.like.device)
    for _ in range(STEPS):
        least = _rounding(problem, loss)
        trial = _step(problem, M, curved=True)
        after = problem.loss(trial).expand(batch)
        lower = loss - after > least
        if not bool((lower | found).all()):
            trial = _chosen(lower, trial, _step(problem, M, curved=False))
            after = problem.loss(trial).expand(batch)
        # Where measurements leave directions free, a step from the minimum is rounding over 0.
        rest = after - loss > least
        if bool((rest & ~found).any()):
            rest = rest & (_descent(problem, M) <= least)
        kept = found | rest
        M, before, loss = _chosen(kept, M, trial), loss, torch.where(kept, loss, after)
        found = kept | ((before - after).abs() <= least)
        if bool(found.all()):
            break
    return Fit(M, torch.where(found, loss, math.nan))


def _exchanged(target: Factors, rank: int) -> Iterator[Factors]:
    """T's leading r directions, one of them in exchange for a later one, near exchanges first."""
    U, S, V = linalg.truncated_svd(target, target.rank)
    root = S.sqrt()
    pairs = itertools.product(range(rank), range(rank, target.rank))
    for out, new in sorted(pairs, key=lambda pair: pair[1] - pair[0])[:EXCHANGES]:
        kept = [*(i for i in range(rank) if i != out), new]
        left, right = (
            U[..., kept] * root[..., None, kept],
            root[..., kept, None] * V.mT[..., kept, :],
        )
        yield Factors(left, right)


def _wider(problem: SensingProblem, M: Factors, rank: int) -> Iterator[Factors]:
    """Starts of rank r: the best part of G, and M with directions of the gradient left at it.

    They are the top ones, and those after the first; each by exact line search.
    """
    operator, batch, more = problem.operator, problem.batch_shape, rank - M.rank
    yield _best_part(problem, rank)
    miss = (problem.targets - operator.forward(M)).expand(*batch, -1)
    count = min(more + 1, *M.shape[-2:])
    U, S, V = linalg.truncated_svd(operator.gradient(miss), count)
    for first in range(count - more + 1):
        some = slice(first, first + more)
        extra = Factors(U[..., some] * S[..., None, some], V[..., some].mT)
        seen = operator.forward(extra)
        size = (seen * seen).sum(-1)
        length = torch.where(size > 0, (miss * seen).sum(-1) / torch.where(size > 0, size, 1), 0)
        A = length[..., None, None] * extra.A
        yield _cut(concatenate(M, extra._replace(A=A)), rank)


def _descent(problem: SensingProblem, M: Factors) -> Tensor:
    """What the steepest direction lowers the loss by, to second order."""
    g, m = problem.gradients(M), problem.measurements
    slope = sum((part * part).sum((-2, -1)) for part in g)
    bend = (problem.operator.tangent(M, g) ** 2).sum(-1) / m
    return torch.where(bend > 0, slope**2 / (2 * torch.where(bend > 0, bend, 1)), 0)


def _best_part(problem: SensingProblem, rank: int) -> Factors:
    """G_r, as balanced factors."""
    U, S, V = linalg.truncated_svd(problem.one_step_gradient(), rank)
    return _cut(Factors(U * S[..., None, :], V.mT), rank)


def _rounding(problem: SensingProblem, loss: Tensor) -> Tensor:
    """What a loss loses, a square of what labels of size y leave: (√L + m·eps·√(‖y‖²/2m))² − L."""
    share = problem.measurements * linalg.eps(loss)
    size = (problem.targets**2).sum(-1) / (2 * problem.measurements)
    return share * (loss + 2 * (loss * size).sqrt()) + share**2 * size


def _cut(M: Factors, rank: int) -> Factors:
    U, S, V = linalg.truncated_svd(M, rank)
    root = S.sqrt()
    return Factors(U * root[..., None, :], root[..., None] * V.mT)


def _step(problem: SensingProblem, M: Factors, *, curved: bool) -> Factors:
    """One step of Newton, or of Gauss–Newton, with (X, Y) stacked as (..., d + k, r), Y off row(M).

    M moves along XVᵀ + UYᵀ, and in matrices of rank r by PXS⁻¹Yᵀ to second order, P off U: with
    the gradient R at M that bends the form by (PRYS⁻¹, RᵀPXS⁻¹).
    """
    operator, d, m = problem.operator, problem.d, problem.measurements
    U, S, V = linalg.truncated_svd(M, M.rank)
    frames, kept = Factors(U, V.mT), S > linalg.eps(S) * S[..., :1]
    inverse = torch.where(kept, 1 / torch.where(kept, S, 1), 0)[..., None, :]
    miss = problem.targets - operator.forward(M)

    def split(Z: Tensor) -> Factors:
        Y = Z[..., d:, :]
        return Factors(Z[..., :d, :], linalg.residual(V, Y).mT)

    def stacked(pulled: Factors) -> Tensor:
        return torch.cat([pulled.A, linalg.residual(V, pulled.B.mT)], dim=-2) / m

    def bent(move: Factors) -> Tensor:
        right = operator.adjoint_right(miss, move.B.mT) * inverse
        left = operator.adjoint_left(miss, linalg.residual(U, move.A)) * inverse
        return -stacked(Factors(linalg.residual(U, right), left.mT))

    def apply(Z: Tensor) -> Tensor:
        move = split(Z)
        found = stacked(operator.pull(operator.tangent(frames, move), frames))
        return found + bent(move) if curved else found

    G = stacked(operator.pull(miss, frames))
    most = min(CURVED, 2 * G.shape[-2] * G.shape[-1]) if curved else PRODUCTS
    solved = conjugate_gradients(apply, G, lambda Z: Z, most)
    X, Y = split(solved)
    # M + XVᵀ + UY = (US + X)Vᵀ + UY.
    return _cut(concatenate(Factors(U * S[..., None, :] + X, V.mT), Factors(U, Y)), M.rank)


def measured_floor(
    problem: SensingProblem, method: MethodName | str | Method, *, rank: int
) -> Tensor:
    """The least training loss that a method's parametrisation can reach, for any measurements.

    0 where the labels are those of a Δ that it can learn. Else: of a pair AB without an offset that
    of `best_fit`, the lowest minimum that it finds; of full fine-tuning, and at r = min(d, k),
    least squares over all matrices, up to ENTRIES entries.

    Args:
        problem: batch (...), with a known Δ.
        method: a name in `METHODS` or a Method.
        rank: r.

    Returns:
        (...); NaN where it is not known, or no minimiser was found.

    Raises:
        TypeError: another problem; predict.floor is for the linear one.
        ValueError: a rank that does not fit.

    Reference: derivations of sensing, section 3.

    >>> from loraone_theory.problems.sensing.sampling import sample_sensing
    >>> made = {"ensemble": "dense", "d": 5, "k": 4, "true_rank": 1, "measurements": 400}
    >>> noisy = sample_sensing(**made, noise_std=0.1)
    >>> floor = measured_floor(noisy, "lora", rank=1)
    >>> bool(abs(floor / (0.1**2 * (400 - 8) / 800) - 1) < 0.2)  # σ²(m − dof)/2m in the mean
    True
    """
    validate.instance("problem", problem, SensingProblem, "predict.floor is the linear one")
    rank = validate.rank(rank, d=problem.d, k=problem.k)
    chosen = methods.get(method, rank)
    unknown = problem.like.new_full(problem.batch_shape, math.nan)
    if problem.shift is None or chosen.facts.ends_with is not None:
        return unknown
    form = chosen.parametrisation
    pair = form.is_pair and not chosen.offset
    if fits_exactly(problem) and (form.name == "full" or (pair and rank >= problem.shift.rank)):
        return torch.zeros_like(unknown)
    small = problem.d * problem.k <= ENTRIES
    if form.name == "full" or (pair and rank == min(problem.d, problem.k) and small):
        return _of_all_matrices(problem) if small else unknown
    return best_fit(problem, rank).loss if pair else unknown


def _of_all_matrices(problem: SensingProblem) -> Tensor:
    """min over M of ‖𝒜(M) − y‖²/2m, with M from A, B = M, I."""
    operator, m = problem.operator, problem.measurements
    eye = torch.eye(problem.k).to(problem.like)

    def apply(M: Tensor) -> Tensor:
        return operator.adjoint(operator.forward(Factors(M, eye.expand(*M.shape[:-2], -1, -1)))) / m

    G = operator.adjoint(problem.targets) / m
    M = conjugate_gradients(apply, G, lambda Z: Z, 2 * problem.d * problem.k)
    fit = Factors(M, eye.expand(*M.shape[:-2], -1, -1))
    # Least squares are met where the gradient is rounding; else the iteration has not ended.
    left = linalg.relative_norm(apply(M) - G, G)
    done = left <= linalg.eps(M) ** 0.5
    return torch.where(done, problem.loss(fit), math.nan).expand(problem.batch_shape)
