"""Small initialisation (arXiv 2106.15013): a spectral phase, and a plateau of order α²."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.small_initialisation import balance, best_error, plateau

REFERENCE = "Stöger, Soltanolkotabi, NeurIPS 2021, arXiv 2106.15013"
PAPER = Paper(
    "small-initialisation", "Small initialisation", REFERENCE, (plateau, best_error, balance)
)
