"""LoRA-One for PEFT models: gradients, initialisation, and training with this library's rules.

>>> sorted(name for name in __all__ if name.startswith("get"))
['get_lora_one_gradients']
"""

from loraone_theory.integrations.given import Triplets
from loraone_theory.integrations.pair_optimizer import PairOptimizer
from loraone_theory.integrations.peft_cache import SavedGradients
from loraone_theory.integrations.peft_config import LoRAOneConfig, ModuleReport, Reports
from loraone_theory.integrations.peft_gradients import get_lora_one_gradients
from loraone_theory.integrations.peft_init import initialize_lora_one_weights
from loraone_theory.integrations.peft_layers import Pair, lora_pairs

__all__ = [
    "LoRAOneConfig",
    "ModuleReport",
    "Pair",
    "PairOptimizer",
    "Reports",
    "SavedGradients",
    "Triplets",
    "get_lora_one_gradients",
    "initialize_lora_one_weights",
    "lora_pairs",
]
