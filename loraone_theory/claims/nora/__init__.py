"""NoRA (arXiv 2410.18965): Nyström initialisation and preconditioned descent."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.nora import exact_rank, under_rank

FILES = (exact_rank, under_rank)
PAPER = Paper("nora", "NoRA", "Li, Zhang, Mokhtari, He, ICLR 2025, arXiv 2410.18965", FILES)
