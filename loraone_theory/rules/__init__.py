"""Update rules, one file each. `RULES` lists the factories by name."""

from loraone_theory.rules.base import Rule
from loraone_theory.rules.gd import gd
from loraone_theory.rules.lora_plus import lora_plus
from loraone_theory.rules.preconditioned import preconditioned

RULES = {
    "gd": gd,
    "lora-plus": lora_plus,
    "preconditioned": preconditioned,
}

__all__ = ["RULES", "Rule", "gd", "lora_plus", "preconditioned"]
