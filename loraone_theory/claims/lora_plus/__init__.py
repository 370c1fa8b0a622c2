"""LoRA+ (arXiv 2402.12354): two learning rates in the limit of large width."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.lora_plus import two_rates

PAPER = Paper("lora-plus", "LoRA+", "Hayou, Ghosh, Yu, ICML 2024, arXiv 2402.12354", (two_rates,))
