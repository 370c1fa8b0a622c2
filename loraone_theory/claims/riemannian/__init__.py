"""Riemannian preconditioning (arXiv 2402.02347) and what PEFT makes of it."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.riemannian import multi_gate, peft_default, toy_model

FILES = (toy_model, multi_gate, peft_default)
REFERENCE = "Zhang, Pilanci, ICML 2024, arXiv 2402.02347"
PAPER = Paper("riemannian", "Riemannian preconditioned LoRA", REFERENCE, FILES)
