"""A low-rank global minimum, or it fails loudly (arXiv 2502.09376)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.fails_loudly import deficient, spurious

FILES = (deficient, spurious)
PAPER = Paper("fails-loudly", "Fails loudly", "Kim, Kim, Ryu, ICML 2025, arXiv 2502.09376", FILES)
