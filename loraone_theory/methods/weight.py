"""Methods that start from the pre-trained weight W: PiSSA, MiLoRA, OLoRA, LoRA-XS."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods import inits, parametrisations
from loraone_theory.methods.base import Method, Scale, scales_with_rank
from loraone_theory.methods.lora import gd


@scales_with_rank
def pissa(*, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """PiSSA: the principal triplets of W trained, the rest frozen."""
    s = validate.number("scale", scale, positive=True)
    init, hyper = inits.pissa(s, svd), {"scale": s, "svd": svd}
    return Method("pissa", init, parametrisations.pair(s), gd, hyper, scale=s, offset=True)


@scales_with_rank
def milora(*, scale: Scale = 1.0) -> Method:
    """MiLoRA: the minor triplets of W trained, the rest frozen."""
    s = validate.number("scale", scale, positive=True)
    init, hyper = inits.milora(s), {"scale": s}
    return Method("milora", init, parametrisations.pair(s), gd, hyper, scale=s, offset=True)


@scales_with_rank
def olora(*, scale: Scale = 1.0) -> Method:
    """OLoRA: factors from the QR factorisation of W, with an offset."""
    s = validate.number("scale", scale, positive=True)
    init, hyper = inits.olora(s), {"scale": s}
    return Method("olora", init, parametrisations.pair(s), gd, hyper, scale=s, offset=True)


@scales_with_rank
def lora_xs(*, core_std: float = 1e-5, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-XS: frozen frames of W, gradient descent on the r x r core."""
    std = validate.number("core_std", core_std, positive=True)
    s = validate.number("scale", scale, positive=True)
    hyper = {"core_std": std, "scale": s, "svd": svd}
    return Method("lora-xs", inits.lora_xs(std, svd), parametrisations.core(s), gd, hyper, scale=s)
