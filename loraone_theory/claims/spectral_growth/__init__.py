"""Muon on both factors (arXiv 2602.06385): all singular values grow at one rate."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.spectral_growth import growth, signs

REFERENCE = "Kang, Yun, Shin, Cho, Yun, arXiv 2602.06385"
PAPER = Paper("spectral-growth", "Uniform spectral growth of Muon", REFERENCE, (growth, signs))
