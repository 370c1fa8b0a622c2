"""Initialisations, one file each. `INITS` lists the factories by name."""

from collections.abc import Callable

from loraone_theory.methods.inits.adalora import adalora
from loraone_theory.methods.inits.base import Init
from loraone_theory.methods.inits.early import early
from loraone_theory.methods.inits.gaussian import gaussian
from loraone_theory.methods.inits.kaiming import kaiming
from loraone_theory.methods.inits.lora_ga import lora_ga
from loraone_theory.methods.inits.lora_sb import lora_sb
from loraone_theory.methods.inits.lora_xs import lora_xs
from loraone_theory.methods.inits.milora import milora
from loraone_theory.methods.inits.nystrom import nystrom
from loraone_theory.methods.inits.olora import olora
from loraone_theory.methods.inits.pissa import pissa
from loraone_theory.methods.inits.released import released
from loraone_theory.methods.inits.spectral import spectral
from loraone_theory.methods.inits.zero import zero

# Name -> the factory of the initialisation: (...) -> Init.
INITS: dict[str, Callable[..., Init]] = {
    "adalora": adalora,
    "early": early,
    "gaussian": gaussian,
    "kaiming": kaiming,
    "lora-ga": lora_ga,
    "lora-sb": lora_sb,
    "lora-xs": lora_xs,
    "milora": milora,
    "nystrom": nystrom,
    "olora": olora,
    "pissa": pissa,
    "released": released,
    "spectral": spectral,
    "zero": zero,
}

__all__ = [
    "INITS",
    "Init",
    "adalora",
    "early",
    "gaussian",
    "kaiming",
    "lora_ga",
    "lora_sb",
    "lora_xs",
    "milora",
    "nystrom",
    "olora",
    "pissa",
    "released",
    "spectral",
    "zero",
]
