"""Gradient dynamics of low-rank fine-tuning beyond kernels (arXiv 2411.15385)."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.beyond_kernels import steps

PAPER = Paper("beyond-kernels", "Beyond kernels", "Dayi, Chen, arXiv 2411.15385", (steps,))
