"""Alternating preconditioned gradient descent (arXiv 2502.00463)."""

from loraone_theory.claims.apgd import noise, rate
from loraone_theory.claims.base import Paper

REFERENCE = "Liu, Han, Tang, Zhang et al., arXiv 2502.00463"
PAPER = Paper("apgd", "Alternating preconditioned descent", REFERENCE, (rate, noise))
