"""AdaLoRA: an orthogonality penalty, importance scores and a shrinking rank, around any rule."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params
from loraone_theory.methods.rules.base import Betas, Rule, State, check_adam, checked


class Scores(NamedTuple):
    """Steps so far, the state of the rule inside, and Ī and Ū of P, λ and Q."""

    step: int
    inner: State
    mean: Params
    spread: Params


def penalty_gradient(P: Tensor, squared: bool = False) -> Tensor:
    """∇‖PᵀP − I‖_F = 2P(PᵀP − I)/‖PᵀP − I‖_F, zero at PᵀP = I; 4P(PᵀP − I) where squared."""
    gap = P.mT @ P - torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    if squared:
        return 4 * P @ gap
    size = torch.linalg.matrix_norm(gap, keepdim=True)
    return torch.where(size > 0, 2 * P @ gap / torch.where(size > 0, size, 1.0), 0.0)


def budget(step: int, start: int, target: int, total: int, initial: int, final: int) -> int:
    """b₀ up to t_i, then ⌊b_T + (b₀ − b_T)(1 − (t − t_i)/(T − t_f − t_i))³⌋, then b_T.

    >>> [budget(t, 12, 8, total=10, initial=2, final=3) for t in range(11)]
    [12, 12, 12, 10, 8, 8, 8, 8, 8, 8, 8]
    """
    if step <= initial:
        return start
    if step >= total - final:
        return target
    left = 1 - (step - initial) / (total - final - initial)
    return int(target + (start - target) * left**3)


def final_rank(target_rank: int | None, rank: int) -> int:
    """b_T: the one given, by default two thirds of r.

    >>> final_rank(None, 12), final_rank(5, 12)
    (8, 5)
    """
    found = max(1, 2 * rank // 3) if target_rank is None else target_rank
    return validate.rank_between("target_rank", found, rank)


def triplet_scores(mean: Params, spread: Params) -> Tensor:
    """ĪŪ of λ_i + its average over column i of P + over row i of Q, shape (..., r)."""
    of_P, of_lam, of_Q = (m * u for m, u in zip(mean, spread, strict=True))
    return of_lam[..., 0, :] + of_P.mean(-2) + of_Q.mean(-1)


def adalora(
    base: Rule,
    target_rank: int | None = None,
    total_steps: int = 1000,
    initial_steps: int = 0,
    final_steps: int = 0,
    interval: int = 1,
    penalty: float = 0.5,
    squared: bool = False,
    betas: Betas = (0.85, 0.85),
) -> Rule:
    """One step of `base` on P, λ, Q with the penalised gradients, then pruning of λ.

    1. ∇_P += (γ/2)∇‖PᵀP − I‖_F, likewise Q: the penalty is a mean over the two matrices.
    2. I = |w·∂w|, Ī ← β₁Ī + (1 − β₁)I, Ū ← β₂Ū + (1 − β₂)|I − Ī|, w after the step.
    3. Every `interval` steps the r − b triplets of lowest score get λ = 0; from T − t_f on the
       scores rest and this is done at every step, so b_T triplets stay. Masked λ keep their
       gradients. Ties go to the lower index.

    `target_rank` b_T defaults to two thirds of r (12 to 8). Means over entries make the scores,
    and so the rule, depend on the coordinates.

    Raises:
        ValueError: t_i + t_f >= T, or b_T > r once r is known.
    """
    validate.instance("base", base, Rule)
    validate.flag("squared", squared)
    validate.integer("total_steps", total_steps, least=1)
    for name, count in (("initial_steps", initial_steps), ("final_steps", final_steps)):
        validate.integer(name, count, least=0)
    validate.integer("interval", interval, least=1)
    checked("adalora", "penalty", penalty)
    check_adam("adalora", betas, 1.0, 0.0)
    if initial_steps + final_steps >= total_steps:
        raise ValueError(
            "initial_steps + final_steps must be < total_steps; got "
            f"{initial_steps} + {final_steps} with total_steps={total_steps}; raise total_steps"
        )

    def init(params: Params) -> Scores:
        final_rank(target_rank, params[1].shape[-1])
        zeros = tuple(torch.zeros_like(t) for t in params)
        return Scores(0, base.init(params), zeros, zeros)

    def update(params: Params, gradients: Params, state: Scores) -> tuple[Params, Scores]:
        (P, _, Q), (grad_P, grad_lam, grad_Q) = params, gradients
        half, t, r = penalty / 2, state.step + 1, params[1].shape[-1]
        gradients = (
            grad_P + half * penalty_gradient(P, squared),
            grad_lam,
            grad_Q + half * penalty_gradient(Q.mT, squared).mT,
        )
        (new_P, lam, new_Q), inner = base.update(params, gradients, state.inner)
        mean, spread = state.mean, state.spread
        settled = t >= total_steps - final_steps
        if not settled:
            weights = (new_P, lam, new_Q)
            now = [(w * g).abs() for w, g in zip(weights, gradients, strict=True)]
            mean = tuple(betas[0] * m + (1 - betas[0]) * i for m, i in zip(mean, now, strict=True))
            off = [(i - m).abs() for i, m in zip(now, mean, strict=True)]
            spread = tuple(
                betas[1] * u + (1 - betas[1]) * o for u, o in zip(spread, off, strict=True)
            )
        last = final_rank(target_rank, r)
        pruned = r - budget(t, r, last, total_steps, initial_steps, final_steps)
        if pruned > 0 and (settled or t % interval == 0):
            order = triplet_scores(mean, spread).argsort(dim=-1, stable=True)
            lam = lam.scatter(-1, order[..., None, :pruned], 0.0)
        return (new_P, lam, new_Q), Scores(t, inner, mean, spread)

    return Rule(
        init,
        update,
        pair=base.pair,
        inverts=base.inverts,
        no_rate="no rate: pruning and the orthogonality penalty move the factors besides the loss",
        ends_with=lambda rank: final_rank(target_rank, rank),
    )
