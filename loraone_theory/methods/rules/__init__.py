"""Update rules, one file each. `RULES` lists the factories by name, (learning_rate, ...) -> Rule.

`AROUND` lists those that go around another rule, (base, ...) -> Rule.
"""

from collections.abc import Callable

from loraone_theory.methods.rules.adalora import adalora
from loraone_theory.methods.rules.adamw import adamw
from loraone_theory.methods.rules.alternating import alternating
from loraone_theory.methods.rules.base import Descent, Local, Rule
from loraone_theory.methods.rules.flow import flow
from loraone_theory.methods.rules.gd import gd
from loraone_theory.methods.rules.lora_muon import lora_muon
from loraone_theory.methods.rules.lora_plus import lora_plus
from loraone_theory.methods.rules.lora_pro import lora_pro
from loraone_theory.methods.rules.momentum import momentum
from loraone_theory.methods.rules.muon import muon
from loraone_theory.methods.rules.preconditioned import preconditioned
from loraone_theory.methods.rules.scaled_adamw import scaled_adamw
from loraone_theory.methods.rules.whitened import whitened

RULES: dict[str, Callable[..., Rule]] = {
    "adamw": adamw,
    "alternating": alternating,
    "flow": flow,
    "gd": gd,
    "lora-muon": lora_muon,
    "lora-plus": lora_plus,
    "lora-pro": lora_pro,
    "momentum": momentum,
    "muon": muon,
    "preconditioned": preconditioned,
    "scaled-adamw": scaled_adamw,
    "whitened": whitened,
}

AROUND: dict[str, Callable[..., Rule]] = {"adalora": adalora}

__all__ = [
    "AROUND",
    "RULES",
    "Descent",
    "Local",
    "Rule",
    "adalora",
    "adamw",
    "alternating",
    "flow",
    "gd",
    "lora_muon",
    "lora_plus",
    "lora_pro",
    "momentum",
    "muon",
    "preconditioned",
    "scaled_adamw",
    "whitened",
]
