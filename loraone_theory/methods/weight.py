"""Methods that start from the pre-trained weight W: PiSSA, MiLoRA, OLoRA, LoRA-XS."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.linalg import EXACT, SVDOptions
from loraone_theory.methods.base import Method, Scale, init_part
from loraone_theory.methods.parametrisations import core, pair


def pissa(*, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """PiSSA: the principal triplets of W trained, the rest frozen."""
    return Method("pissa", init_part("pissa", svd=svd), pair, scaling=scale, offset=True)


def milora(*, scale: Scale = 1.0) -> Method:
    """MiLoRA: the minor triplets of W trained, the rest frozen."""
    return Method("milora", init_part("milora"), pair, scaling=scale, offset=True)


def olora(*, scale: Scale = 1.0) -> Method:
    """OLoRA: factors from the QR factorisation of W, with an offset."""
    return Method("olora", init_part("olora"), pair, scaling=scale, offset=True)


def lora_xs(*, core_std: float = 1e-5, scale: Scale = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-XS: frozen frames of W, gradient descent on the r x r core."""
    std = validate.number("core_std", core_std, positive=True)
    return Method("lora-xs", init_part("lora-xs", core_std=std, svd=svd), core, scaling=scale)
