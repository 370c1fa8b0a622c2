"""Scaled AdamW: Adam on preconditioned gradients, in the two orders found in practice."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from loraone_theory.core import tall, validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import Inverse, inverse_psd
from loraone_theory.core.moments import Adam, adam, adam_
from loraone_theory.methods.rules.base import (
    ADAM,
    Betas,
    Drops,
    Moments,
    Rule,
    check_adam,
    check_rates,
    checked,
    decay,
    relative_damping,
)

Order = Literal["released", "peft"]
State = tuple[Moments, Moments, Drops]


def scaled_adamw(
    learning_rate: Scalar,
    damping: Scalar = 0.0,
    order: Order = "released",
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    bias_correction: bool | None = None,
    relative: float = 0.0,
) -> Rule:
    """Adam moments of g_A = ∇_A(BBᵀ + λI)⁻¹ and g_B = (AᵀA + λI)⁻¹∇_B, with ∇ from time t.

    "released": B's Gram matrix is that of the already updated A, or of A itself where it stays;
    moments are not bias-corrected unless asked for, and (1 − ηw) multiplies both factors after the
    step. "peft": both Gram matrices from time t, then AdamW, with bias correction and the decay
    first. `relative` is that of `preconditioned`.
    """
    check_rates("scaled-adamw", learning_rate, damping)
    check_adam("scaled-adamw", betas, eps, weight_decay)
    checked("scaled-adamw", "relative", relative)
    validate.choice("order", order, ("released", "peft"))
    released = order == "released"
    if bias_correction is not None:
        validate.flag("bias_correction", bias_correction)
    corrected = not released if bias_correction is None else bias_correction

    def inverse(M: Tensor) -> Inverse:
        return inverse_psd(M, relative_damping(M, damping, relative))

    def by(
        adam: Adam,
        params: Params,
        gradients: Params,
        state: State,
        moves: tuple[bool, ...] = (True, True),
    ) -> tuple[Params, State]:
        (A, B), (grad_A, grad_B), (of_A, of_B, drops) = params, gradients, state

        def step(P: Tensor, g: Tensor, of: Moments) -> tuple[Tensor, Moments]:
            first = 0.0 if released else weight_decay
            (new,), of = adam((P,), (g,), of, (learning_rate,), betas, eps, first, corrected)
            return new, of

        if released:
            right = inverse(B @ B.mT)
            stays = None if moves[0] else inverse(A.mT @ A)
            new_A, of_A = step(A, tall.product(grad_A, right.matrix), of_A)
            left = inverse(new_A.mT @ new_A) if stays is None else stays
        else:  # both at once, since small inverses cost calls and not arithmetic
            both = inverse(torch.stack(torch.broadcast_tensors(A.mT @ A, B @ B.mT)))
            left, right = (Inverse(both.matrix[i], both.kept[i]) for i in range(2))
            new_A, of_A = step(A, tall.product(grad_A, right.matrix), of_A)
        new_B, of_B = step(B, left.matrix @ grad_B, of_B)
        if released:
            new_A, new_B = (decay(P, learning_rate, weight_decay) for P in (new_A, new_B))
        return (new_A, new_B), (of_A, of_B, drops.after(left, right))

    def init(params: Params) -> State:
        return Moments.zero(params[:1]), Moments.zero(params[1:]), Drops.none(params)

    whole = Rule(
        init,
        partial(by, adam),
        dropped=lambda s: (s[2].steps, s[2].last),
        pair=True,
        inverts=True,
        damping=0.01,  # the Gram matrix of B is singular at LoRA-init
        no_rate=ADAM,
        replays=True,
        in_place=partial(by, adam_),
    )
    return whole._replace(
        partly=lambda moves: whole._replace(
            update=partial(by, adam, moves=moves), in_place=partial(by, adam_, moves=moves)
        )
    )
