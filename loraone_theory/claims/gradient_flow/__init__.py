"""LoRA's gradient flow (arXiv 2602.10212, 2503.06982): where it ends, and who shares it."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.gradient_flow import limits, two_layers

REFERENCE = "Rushka, Klabjan, arXiv 2602.10212; Z. Xu and others, arXiv 2503.06982"
PAPER = Paper("gradient-flow", "LoRA's gradient flow", REFERENCE, (limits, two_layers))
