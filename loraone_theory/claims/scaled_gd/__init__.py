"""ScaledGD (arXiv 2005.08898): preconditioned descent on factorisations, sensing, completion."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.scaled_gd import completion, factorisation, robust, sensing

FILES = (factorisation, sensing, completion, robust)
PAPER = Paper("scaled-gd", "ScaledGD", "Tong, Ma, Chi, JMLR 2021, arXiv 2005.08898", FILES)
