"""Rethinking the rank threshold for LoRA (arXiv 2605.03724)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.rank_threshold import capacity

PAPER = Paper("rank-threshold", "Rank threshold", "Park, arXiv 2605.03724", (capacity,))
