"""Methods that start from the one-step gradient: LoRA-One in its forms, LoRA-GA, LoRA-SB."""

from __future__ import annotations

from typing import Any

from loraone_theory.core import validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.core.validate import Array
from loraone_theory.methods.base import Method, Scale, init_part
from loraone_theory.methods.inits.lora_ga import Direction, Size
from loraone_theory.methods.parametrisations import core, pair
from loraone_theory.methods.rules.base import Betas
from loraone_theory.methods.rules.scaled_adamw import Order


def lora_one(
    *, gamma: float | str | None = None, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One: Spectral-init from the one-step gradient, gradient descent."""
    return Method("lora-one", init_part("spectral", gamma=gamma, svd=svd), pair, scaling=scale)


def lora_one_preconditioned(
    *,
    gamma: float | str | None = None,
    adaptive: float = 0.0,
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-One: Spectral-init, preconditioned gradient descent (Eq. 9)."""
    return lora_one(gamma=gamma, scale=scale, svd=svd).trained_by(
        "preconditioned", adaptive=adaptive
    )


def lora_one_whitened(
    *,
    covariance: Array | None = None,
    gamma: float | str | None = None,
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-One: Spectral-init, preconditioned descent in the metric of the inputs' covariance."""
    if covariance is not None:
        covariance = validate.tensor("covariance", covariance, owned=True)
    return lora_one(gamma=gamma, scale=scale, svd=svd).trained_by("whitened", covariance=covariance)


def lora_one_adamw(
    *,
    gamma: float | str | None = None,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-One: Spectral-init, AdamW."""
    return lora_one(gamma=gamma, scale=scale, svd=svd).trained_by(
        "adamw", betas=betas, eps=eps, weight_decay=weight_decay
    )


def lora_one_scaled_adamw(
    *,
    gamma: float | str | None = None,
    order: Order = "released",
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    bias_correction: bool | None = None,
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-One: Spectral-init, scaled AdamW."""
    hyper: dict[str, Any] = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    return lora_one(gamma=gamma, scale=scale, svd=svd).trained_by(
        "scaled-adamw", order=order, bias_correction=bias_correction, **hyper
    )


def lora_one_released(
    *, gamma: float = 128.0, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One as released (Algorithm 1): gradient directions scaled by 1/(gamma sigma_1)."""
    gamma = validate.number("gamma", gamma, positive=True)
    init = init_part("released", gamma=gamma, svd=svd)
    return Method("lora-one-released", init, pair, scaling=scale)


def lora_one_early(*, gamma: float = 16.0, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-One of the first notebook: gradient frames of equal weight, with an offset."""
    gamma = validate.number("gamma", gamma, positive=True)
    init = init_part("early", gamma=gamma, svd=svd)
    return Method("lora-one-early", init, pair, scaling=scale, offset=True)


def lora_ga(
    *,
    gamma: float = 16.0,
    direction: Direction = "ArB2r",
    size: Size = "stable",
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-GA: gradient directions 1..r for A and r+1..2r for B, with an offset."""
    gamma = validate.number("gamma", gamma, positive=True)
    init = init_part("lora-ga", gamma=gamma, direction=direction, size=size, svd=svd)
    return Method("lora-ga", init, pair, scaling=scale, offset=True)


def lora_sb(
    *, step: float = 1.0, signed: bool = False, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-SB: frozen gradient frames, gradient descent on the r x r core."""
    step = validate.number("step", step, positive=True)
    init = init_part("lora-sb", step=step, signed=signed, svd=svd)
    return Method("lora-sb", init, core, scaling=scale)
