"""Initialisations, one file each. `INITS` lists the factories by name."""

from loraone_theory.inits.base import Init
from loraone_theory.inits.gaussian import gaussian
from loraone_theory.inits.lora_ga import lora_ga
from loraone_theory.inits.lora_sb import lora_sb
from loraone_theory.inits.released import released
from loraone_theory.inits.spectral import spectral
from loraone_theory.inits.zero import zero

INITS = {
    "gaussian": gaussian,
    "lora-ga": lora_ga,
    "lora-sb": lora_sb,
    "released": released,
    "spectral": spectral,
    "zero": zero,
}

__all__ = ["INITS", "Init", "gaussian", "lora_ga", "lora_sb", "released", "spectral", "zero"]
