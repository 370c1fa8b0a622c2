"""Update rules, one file each. `RULES` lists the factories by name, (learning_rate, ...) -> Rule.

`AROUND` lists those that go around another rule, (base, ...) -> Rule.
"""

from collections.abc import Callable

from loraone_theory.methods.rules.adalora import adalora
from loraone_theory.methods.rules.adamw import adamw
from loraone_theory.methods.rules.alternating import alternating
from loraone_theory.methods.rules.base import Descent, Local, Rule
from loraone_theory.methods.rules.flow import flow
from loraone_theory.methods.rules.gauss_newton import gauss_newton
from loraone_theory.methods.rules.gd import gd
from loraone_theory.methods.rules.lora_muon import lora_muon
from loraone_theory.methods.rules.lora_plus import lora_plus
from loraone_theory.methods.rules.lora_pro import lora_pro
from loraone_theory.methods.rules.lora_rite import lora_rite
from loraone_theory.methods.rules.momentum import momentum
from loraone_theory.methods.rules.muon import muon
from loraone_theory.methods.rules.preconditioned import preconditioned
from loraone_theory.methods.rules.scaled_adamw import scaled_adamw
from loraone_theory.methods.rules.spectral_scaled import spectral_scaled
from loraone_theory.methods.rules.whitened import whitened

# Name -> the factory of the rule: (learning_rate, damping, ...) -> Rule.
RULES: dict[str, Callable[..., Rule]] = {
    "adamw": adamw,
    "alternating": alternating,
    "flow": flow,
    "gauss-newton": gauss_newton,
    "gd": gd,
    "lora-muon": lora_muon,
    "lora-plus": lora_plus,
    "lora-pro": lora_pro,
    "lora-rite": lora_rite,
    "momentum": momentum,
    "muon": muon,
    "preconditioned": preconditioned,
    "scaled-adamw": scaled_adamw,
    "spectral-scaled": spectral_scaled,
    "whitened": whitened,
}

# Name -> a rule that is put around another one.
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
    "gauss_newton",
    "gd",
    "lora_muon",
    "lora_plus",
    "lora_pro",
    "lora_rite",
    "momentum",
    "muon",
    "preconditioned",
    "scaled_adamw",
    "spectral_scaled",
    "whitened",
]
