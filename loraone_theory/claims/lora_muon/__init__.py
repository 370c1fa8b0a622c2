"""LoRA-Muon (arXiv 2606.12921): spectral steepest descent on matrices of low rank."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.lora_muon import rite, steepest

REFERENCE = "Cesista, Crowson, Simal, Biderman, arXiv 2606.12921"
PAPER = Paper("lora-muon", "LoRA-Muon", REFERENCE, (rite, steepest))
