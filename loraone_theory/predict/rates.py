"""Local rates and step sizes at any solution, from the singular values of the tangent map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.shown import Shown
from loraone_theory.methods.parametrisations import LEFT, RIGHT
from loraone_theory.predict import checks
from loraone_theory.predict.modes import Curvature, mode_extremes
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.predict.pair_inverse import Inverse, pair_inverse
from loraone_theory.predict.relu_modes import relu_extremes
from loraone_theory.predict.seen import seen
from loraone_theory.predict.stationary import refuse_moving, refuse_saddle
from loraone_theory.predict.tangent_map import RuleName, TangentMap, tangent_map, tiny
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import reduce_around
from loraone_theory.problems.relu.problem import ReLUProblem
from loraone_theory.problems.sensing.problem import SensingProblem

UNSEEN = (
    "fewer samples than inputs: the error off their row space is at rest, so the rate is 1; "
    "loss_rate and best_step are those of the part that the samples see"
)
UNMEASURED = (
    "the measurements do not determine AB: some directions are at rest, so the rate is 1; "
    "loss_rate and best_step are those of the part that is measured"
)
ROUNDED = (
    "the smallest μ is within rounding of 0 in {dtype} and given as 0, so the rate is 1: a mode is "
    "at rest, as where two singular values meet, or slower than this dtype can tell"
)
RULES: tuple[RuleName, ...] = ("gd", "preconditioned", "lora-pro")


@dataclass(frozen=True, eq=False, repr=False)
class Contraction(Shown):
    """Near the solution mode i of the residual is multiplied by 1 − ημ_i in each step.

    With momentum β the multipliers are the roots of z² − (1 + β − ημ_i)z + β.

    Args:
        extremes: (..., 2), the smallest and the largest μ; NaN where not predicted.
        momentum: β, 0 for rules without.
        notes: why a number is missing, or what it takes for granted.
        moving: (...), the smallest μ of modes that the training loss sees, where others are at
            rest (μ = 0, N < d); None where it is that of `extremes`.
    """

    extremes: Tensor
    momentum: float = 0.0
    notes: tuple[str, ...] = ()
    moving: Tensor | None = None

    def rate(self, learning_rate: float | Tensor) -> Tensor:
        """The factor per step of the slowest mode, (...); unstable where it exceeds 1.

        Args:
            learning_rate: η, a number or (...).

        >>> Contraction(torch.tensor([1.0, 2.0])).rate(0.5)
        tensor(0.5000)
        """
        return self._slowest(self.extremes, learning_rate)

    def loss_rate(self, learning_rate: float | Tensor) -> Tensor:
        """The factor per step of √(L_t − floor), (...): the slowest mode that the loss sees."""
        return self._slowest(self._loss_extremes, learning_rate)

    @property
    def largest_stable_step(self) -> Tensor:
        """2(1 + β)/μ_max, (...)."""
        return 2 * (1 + self.momentum) / self.extremes[..., 1]

    @property
    def best_step(self) -> Tensor:
        """2(1 + β)/(μ_min + μ_max), with the fastest local rate at this β, (...).

        Of the modes that move: those at rest are not helped by any step.
        """
        return 2 * (1 + self.momentum) / self._loss_extremes.sum(-1)

    @property
    def _loss_extremes(self) -> Tensor:
        if self.moving is None:
            return self.extremes
        return torch.stack([self.moving, self.extremes[..., 1]], dim=-1)

    def _slowest(self, extremes: Tensor, learning_rate: float | Tensor) -> Tensor:
        eta = checks.step_size(learning_rate)
        if isinstance(eta, Tensor):
            eta = eta[..., None]
        x = (1 + self.momentum - eta * extremes).abs()
        beats = x**2 < 4 * self.momentum
        real = (x + (x**2 - 4 * self.momentum).clamp_min(0).sqrt()) / 2
        return torch.where(beats, math.sqrt(self.momentum), real).amax(-1)


def rates(
    problem: LinearProblem | SensingProblem | ReLUProblem,
    at: Factors,
    *,
    rule: RuleName = "gd",
    scale: float = 1.0,
    damping: float = 0.0,
    ratio: float = 1.0,
    momentum: float = 0.0,
) -> Contraction:
    """The extreme μ of a rule near a stationary pair, whatever was measured.

    Where AB meets the target they are squared singular values of the tangent map
    (X, Y) ↦ 𝒜(X B̄ + Ā Y), the nonzero ones: Ā = A, B̄ = B of GD; Ā = A(AᵀA + λI)^{−1/2},
    B̄ = (BBᵀ + λI)^{−1/2}B of preconditioned GD; of LoRA-Pro with Y off row(B). Where a residual
    stays, the Hessian's second part is added. Directions that AB does not see to first order, the
    gauge and superfluous directions that have died out, are projected out.

    Args:
        problem: batch (...), with its offset: linear, of any measurement operator, or a ReLU
            problem of N samples, which is quadratic where no mask changes (derivations 5.4).
        at: A (..., d, r), B (..., r, k), a stationary point of the loss at W_f + sAB.
        rule: "gd" (also LoRA+ and momentum), "preconditioned" or "lora-pro".
        scale: s.
        damping: λ of rules with inverses.
        ratio: of the step of B to that of A (LoRA+).
        momentum: β.

    Returns:
        A Contraction, batch (...). Where measurements leave directions unseen (N < d; fewer than
        r(d + k − r) of them; a row or column without one) the smallest μ is 0, with a note; with
        another where it is 0 to rounding only.

    Raises:
        TypeError: another model, or factors that are not tensors.
        ValueError: factors that do not fit or are not stationary; arguments out of range.

    Reference: derivations 3.7.

    >>> from loraone_theory.problems.linear.problem import LinearProblem
    >>> shift = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> problem = LinearProblem.population(shift=shift)
    >>> at = Factors(shift, torch.eye(2))
    >>> rates(problem, at, rule="preconditioned").extremes
    tensor([1., 2.])
    >>> rates(problem, at).extremes.round(decimals=4)
    tensor([ 1., 10.])
    """
    checks.measured(problem, ReLUProblem)
    validate.choice("rule", rule, RULES)
    s = validate.number("scale", scale, positive=True)
    damping = validate.number("damping", damping)
    ratio = validate.number("ratio", ratio, positive=True)
    momentum = validate.below_one("momentum", momentum)
    A, B = checked("at", at, d=problem.d, k=problem.k, like=problem.like, batch=problem.batch_shape)
    # In the units of √s A, √s B the product is sAB; an inverse there takes sλ for λ.
    pair = Factors(s**0.5 * A, s**0.5 * B)
    gain = {"gd": s, "preconditioned": s**2, "lora-pro": 1.0}[rule]
    tangent = tangent_map(pair, rule, damping=s * damping, ratio=ratio)
    if not isinstance(problem, LinearProblem):
        if isinstance(problem, ReLUProblem):
            found = gain * relu_extremes(problem, pair, tangent)
        else:
            found = gain * _measured_extremes(problem, pair, tangent)
        note, at_rest = UNMEASURED, bool((found[..., 0] == 0).any())
    else:
        part, note = seen(noiseless(problem)), UNSEEN
        found = gain * _linear_extremes(
            part.problem,
            Factors(part.lower(pair.A), pair.B),
            Factors(part.lower(tangent.A), tangent.B),
            tangent,
        )
        at_rest = part.basis is not None
    if not at_rest:
        rounded = bool((found[..., 0] == 0).any())
        notes = (ROUNDED.format(dtype=str(found.dtype).removeprefix("torch.")),) if rounded else ()
        return Contraction(found[..., [0, 2]], momentum, notes)
    high = found[..., 2]
    rested = torch.stack([torch.zeros_like(high), high], dim=-1)
    return Contraction(rested, momentum, (note,), moving=found[..., 1])


def _measured_extremes(problem: SensingProblem, at: Factors, tangent: TangentMap) -> Tensor:
    """In all coordinates: measurements mix the columns, so runs leave no row space alone."""
    operator, m = problem.operator, problem.measurements
    miss = operator.forward(at) - problem.targets
    refuse_moving(problem.gradients(at), at, torch.linalg.matrix_norm(at.dense()))
    interpolates = bool(
        (linalg.relative_norm(miss[..., None], problem.targets[..., None]) <= tiny(miss)).all()
    )
    refuse_saddle(interpolates, tangent)

    def gauss(pair: Factors, change: Factors) -> Factors:
        pulled = operator.pull(operator.tangent(pair, change), pair)
        return Factors(pulled.A / m, pulled.B / m)

    def bend(change: Factors) -> Factors:
        right = operator.adjoint_right(miss, change.B.mT)
        left = operator.adjoint_left(miss, change.A)
        return Factors(right / m, left.mT / m)

    return mode_extremes(tangent, Curvature(gauss, None if interpolates else bend, m))


def _linear_extremes(
    problem: LinearProblem, at: Factors, weighted: Factors, weights: TangentMap
) -> Tensor:
    """On columns in span(V, offset, rows of B), which runs never leave."""
    rows = _settled(problem, at.B)
    reduction = reduce_around(problem, [(at.A, LEFT), (rows, RIGHT)])
    small, pair = reduction.problem, reduction.lower(at)
    A, B = reduction.lower(weighted)
    spared = weights.spared[..., : min(B.shape[-2:])]
    tangent = TangentMap(A, B, weights.right, weights.left, spared)
    apply = small.covariance.apply
    E = pair.dense() - small.target.dense()
    M = apply(E)
    top, T = small.covariance.spectrum("extremes")[..., -1], small.target.dense()
    gradient = Factors(M @ pair.B.mT, pair.A.mT @ M)
    refuse_moving(gradient, pair, top * torch.linalg.matrix_norm(T))
    interpolates = bool((linalg.relative_norm(E, T) <= tiny(E)).all())
    refuse_saddle(interpolates, tangent)

    def gauss(pair: Factors, change: Factors) -> Factors:
        (A, B), (X, Y) = pair, change
        X, SA = apply(X), apply(A)  # Σ̂(XB + AY) is never formed: its factors are thin
        on_A = X @ (B @ B.mT) + SA @ (Y @ B.mT)
        return Factors(on_A, (A.mT @ X) @ B + (A.mT @ SA) @ Y)

    def bend(change: Factors) -> Factors:
        return Factors(M @ change.B.mT, change.A.mT @ M)

    def inverse() -> Inverse | None:
        eye = torch.eye(small.d).to(M).expand(*M.shape[:-2], -1, -1)
        return pair_inverse(apply(eye), tangent, torch.zeros_like(M) if interpolates else M)

    width = pair.A.shape[-1] * (small.d + small.k)
    bent = None if interpolates else bend
    found = mode_extremes(tangent, Curvature(gauss, bent, width, inverse))
    if small.d < problem.d:  # Σ̂ = I: directions outside the span feel X ↦ X B̄B̄ᵀ alone
        outer = tangent.outer
        low = outer.nan_to_num(torch.inf).amin(-1)
        high = outer.nan_to_num(0.0).amax(-1).maximum(found[..., 2])
        ends = (low.minimum(found[..., 0]), low.minimum(found[..., 1]), high)
        found = torch.stack(ends, dim=-1)
    return found


def _settled(problem: LinearProblem, B: Tensor) -> Tensor:
    """B without rows off those of the target that are rounding: no run moves along them."""
    Q = torch.linalg.qr(problem.target.B.mT).Q
    outside = linalg.residual(Q, B.mT)
    if bool((linalg.relative_norm(outside, B.mT) > tiny(B)).any()):
        return B
    return (B @ Q) @ Q.mT
