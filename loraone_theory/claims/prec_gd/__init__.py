"""PrecGD (arXiv 2504.09708): preconditioned descent beyond the true rank, damped by the error."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.prec_gd import rate

PAPER = Paper("prec-gd", "PrecGD", "Zhang, Fattahi, Zhang, arXiv 2504.09708", (rate,))
