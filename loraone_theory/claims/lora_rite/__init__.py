"""LoRA-RITE (arXiv 2410.20625): steps that do not depend on how AB is cut into A and B."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.lora_rite import diagonal, invariance

FILES = (invariance, diagonal)
PAPER = Paper("lora-rite", "LoRA-RITE", "Yen et al., ICLR 2025, arXiv 2410.20625", FILES)
