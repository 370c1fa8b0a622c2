"""Learning rates and curvature of LoRA's variants (arXiv 2602.04998)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.learning_rate_matters import best_rates, curvature

FILES = (curvature, best_rates)
REFERENCE = "Lee, Ko, Chen, Yeh, arXiv 2602.04998"
PAPER = Paper("learning-rate-matters", "Learning rate matters", REFERENCE, FILES)
