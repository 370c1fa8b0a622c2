"""Which factor is zero at the start, and the learning rates that it allows (arXiv 2406.08447)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.impact_of_initialisation import stable_rates

REFERENCE = "Hayou, Ghosh, Yu, NeurIPS 2024, arXiv 2406.08447"
FILES = (stable_rates,)
PAPER = Paper("impact-of-initialisation", "Impact of initialisation", REFERENCE, FILES)
