"""Scaled descent from a general random start (Jia et al., NeurIPS 2023)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.preconditioning_matters import random_start

REFERENCE = "Jia, Wang, Peng, Feng, Meng, NeurIPS 2023"
PAPER = Paper("preconditioning-matters", "Preconditioning matters", REFERENCE, (random_start,))
