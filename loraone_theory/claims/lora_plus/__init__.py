"""LoRA+ (arXiv 2402.12354): two learning rates in the limit of large width."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.lora_plus import adam_step, two_rates

REFERENCE = "Hayou, Ghosh, Yu, ICML 2024, arXiv 2402.12354"
PAPER = Paper("lora-plus", "LoRA+", REFERENCE, (two_rates, adam_step))
