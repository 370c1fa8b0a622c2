"""ScaledGD(λ) (arXiv 2302.01186): preconditioned and damped, from a small random start."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.scaled_gd_lambda import small_start

REFERENCE = "Xu, Shen, Chi, Ma, ICML 2023, arXiv 2302.01186"
PAPER = Paper("scaled-gd-lambda", "ScaledGD(λ)", REFERENCE, (small_start,))
