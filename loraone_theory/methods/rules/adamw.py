"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from functools import partial

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.moments import Adam, adam, adam_
from loraone_theory.methods.rules.base import (
    ADAM,
    Betas,
    Moments,
    Rule,
    check_adam,
    check_rates,
    check_ratio,
)


def adamw(
    learning_rate: Scalar,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    ratio: float = 1.0,
) -> Rule:
    """P ← (1 − ηw)P − η m̂/(√v̂ + ε), entry by entry, as torch.optim.AdamW does.

    The last tensor (B of a pair) takes steps `ratio` times as large: LoRA+. The rule is entrywise,
    so its trajectory does not rotate with the problem.
    """
    check_rates("adamw", learning_rate)
    check_adam("adamw", betas, eps, weight_decay)
    check_ratio("adamw", ratio)

    def by(step: Adam, params: Params, gradients: Params, state: Moments) -> tuple[Params, Moments]:
        rates = [learning_rate] * (len(params) - 1) + [ratio * learning_rate]
        return step(params, gradients, state, rates, betas, eps, weight_decay)

    return Rule(
        Moments.zero, partial(by, adam), no_rate=ADAM, replays=True, in_place=partial(by, adam_)
    )
