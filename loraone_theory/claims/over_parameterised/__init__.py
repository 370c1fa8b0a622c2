"""Over-parameterised descent (arXiv 2310.01769): symmetric sublinear, asymmetric linear in α²."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.over_parameterised import asymmetric, rate, symmetric

REFERENCE = "Xiong, Ding, Du, ICLR 2024, arXiv 2310.01769"
FILES = (symmetric, rate, asymmetric)
PAPER = Paper("over-parameterised", "Over-parameterised descent", REFERENCE, FILES)
