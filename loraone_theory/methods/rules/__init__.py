"""Update rules, one file each. `RULES` lists the factories by name.

`PAIR_RULES` names those that need a pair (A, B); `WRAPPERS` those that go around another rule.
"""

from collections.abc import Callable

from loraone_theory.methods.rules.adalora import adalora
from loraone_theory.methods.rules.adamw import adamw
from loraone_theory.methods.rules.base import Rule
from loraone_theory.methods.rules.gd import gd
from loraone_theory.methods.rules.lora_plus import lora_plus
from loraone_theory.methods.rules.lora_pro import lora_pro
from loraone_theory.methods.rules.momentum import momentum
from loraone_theory.methods.rules.preconditioned import preconditioned
from loraone_theory.methods.rules.scaled_adamw import scaled_adamw

RULES: dict[str, Callable[..., Rule]] = {
    "adalora": adalora,
    "adamw": adamw,
    "gd": gd,
    "lora-plus": lora_plus,
    "lora-pro": lora_pro,
    "momentum": momentum,
    "preconditioned": preconditioned,
    "scaled-adamw": scaled_adamw,
}

PAIR_RULES = frozenset({"lora-plus", "lora-pro", "preconditioned", "scaled-adamw"})
WRAPPERS = frozenset({"adalora"})

__all__ = [
    "PAIR_RULES",
    "RULES",
    "WRAPPERS",
    "Rule",
    "adalora",
    "adamw",
    "gd",
    "lora_plus",
    "lora_pro",
    "momentum",
    "preconditioned",
    "scaled_adamw",
]
