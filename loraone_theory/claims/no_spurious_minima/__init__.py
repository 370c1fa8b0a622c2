"""LoRA in the NTK regime has no spurious local minima (arXiv 2402.11867)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.no_spurious_minima import decay

REFERENCE = "Jang, Lee, Ryu, ICML 2024, arXiv 2402.11867"
PAPER = Paper("no-spurious-minima", "No spurious local minima", REFERENCE, (decay,))
