"""Alternating Gauss–Newton steps (Jia et al. 2024): the saddle at zero, and what a full step is."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.gauss_newton import least_squares, saddle

REFERENCE = "Jia et al. 2024, approximated Gauss–Newton for matrix sensing, Sections 1 to 3"
PAPER = Paper("gauss-newton", "Alternating Gauss–Newton", REFERENCE, (saddle, least_squares))
