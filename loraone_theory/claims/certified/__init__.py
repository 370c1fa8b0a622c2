"""Inequalities proved on their whole domain by ball arithmetic."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.certified import scalar_recursion, scaled_gd_edge, sharp_lemmas

PAPER = Paper(
    "certified",
    "Certified inequalities",
    "statements of our own, true on the whole domain by ball arithmetic (python-flint)",
    (sharp_lemmas, scalar_recursion, scaled_gd_edge),
)
