"""Methods that start from the one-step gradient: LoRA-One in its forms, LoRA-GA, LoRA-SB."""

from __future__ import annotations

from typing import Any

from loraone_theory.core import validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods import inits, parametrisations
from loraone_theory.methods.base import Method, Scale, scales_with_rank
from loraone_theory.methods.inits import Init
from loraone_theory.methods.inits.lora_ga import Direction, Size
from loraone_theory.methods.lora import gd
from loraone_theory.methods.rules.base import Betas
from loraone_theory.methods.rules.scaled_adamw import Order


def _pair(name: str, init: Init, s: float, offset: bool = False, **hyper: Any) -> Method:
    hyper = {**hyper, "scale": s}
    return Method(name, init, parametrisations.pair(s), gd, hyper, scale=s, offset=offset)


@scales_with_rank
def lora_one(
    *, gamma: float | str | None = None, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One: Spectral-init from the one-step gradient, gradient descent."""
    s = validate.number("scale", scale, positive=True)
    return _pair("lora-one", inits.spectral(gamma, s, svd), s, gamma=gamma, svd=svd)


def lora_one_preconditioned(
    *,
    gamma: float | str | None = None,
    adaptive: float = 0.0,
    scale: Scale = 1.0,
    svd: SVDOptions = EXACT,
) -> Method:
    """LoRA-One: Spectral-init, preconditioned gradient descent (Eq. 9)."""
    return lora_one(gamma=gamma, scale=scale, svd=svd).trained_by(
        "preconditioned", adaptive=validate.number("adaptive", adaptive)
    )


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


@scales_with_rank
def lora_one_released(
    *, gamma: float = 128.0, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One as released (Algorithm 1): gradient directions scaled by 1/(gamma sigma_1)."""
    gamma = validate.number("gamma", gamma, positive=True)
    s = validate.number("scale", scale, positive=True)
    return _pair("lora-one-released", inits.released(gamma, svd), s, gamma=gamma, svd=svd)


@scales_with_rank
def lora_one_early(*, gamma: float = 16.0, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-One of the first notebook: gradient frames of equal weight, with an offset."""
    gamma = validate.number("gamma", gamma, positive=True)
    s = validate.number("scale", scale, positive=True)
    init = inits.early(gamma, s, svd)
    return _pair("lora-one-early", init, s, offset=True, gamma=gamma, svd=svd)


@scales_with_rank
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
    s = validate.number("scale", scale, positive=True)
    init = inits.lora_ga(gamma, s, direction, size, svd)
    hyper = {"gamma": gamma, "direction": direction, "size": size, "svd": svd}
    return _pair("lora-ga", init, s, offset=True, **hyper)


@scales_with_rank
def lora_sb(
    *, step: float = 1.0, signed: bool = False, scale: Scale = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-SB: frozen gradient frames, gradient descent on the r x r core."""
    step = validate.number("step", step, positive=True)
    s = validate.number("scale", scale, positive=True)
    return Method(
        "lora-sb",
        inits.lora_sb(step, signed, svd),
        parametrisations.core(s),
        gd,
        hyper={"step": step, "signed": signed, "scale": s, "svd": svd},
        scale=s,
    )
