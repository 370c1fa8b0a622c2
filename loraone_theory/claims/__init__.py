"""The claims: a folder for each paper, a file for each statement. `CLAIMS` maps ids to claims."""

import importlib
from typing import Any

from loraone_theory.claims import (
    apgd,
    beyond_kernels,
    certified,
    fails_loudly,
    gauss_newton,
    gradient_flow,
    impact_of_initialisation,
    learning_rate_matters,
    lora_muon,
    lora_one,
    lora_plus,
    lora_rite,
    no_spurious_minima,
    nora,
    over_parameterised,
    prec_gd,
    preconditioning_matters,
    rank_threshold,
    riemannian,
    scaled_gd,
    scaled_gd_lambda,
    sensing,
    small_initialisation,
    spectral_growth,
)
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, Paper
from loraone_theory.claims.judge import Judgement, judge
from loraone_theory.claims.registry import Registry

# In the order of the report.
PAPERS: tuple[Paper, ...] = (
    lora_one.PAPER,
    scaled_gd.PAPER,
    prec_gd.PAPER,
    scaled_gd_lambda.PAPER,
    small_initialisation.PAPER,
    over_parameterised.PAPER,
    nora.PAPER,
    riemannian.PAPER,
    lora_plus.PAPER,
    impact_of_initialisation.PAPER,
    learning_rate_matters.PAPER,
    gradient_flow.PAPER,
    fails_loudly.PAPER,
    no_spurious_minima.PAPER,
    rank_threshold.PAPER,
    lora_rite.PAPER,
    lora_muon.PAPER,
    apgd.PAPER,
    preconditioning_matters.PAPER,
    gauss_newton.PAPER,
    spectral_growth.PAPER,
    beyond_kernels.PAPER,
    sensing.PAPER,
    certified.PAPER,
)

# Id -> claim, paper after paper.
CLAIMS = Registry(claim for paper in PAPERS for claim in paper.claims)

__all__ = [
    "CLAIMS",
    "PAPERS",
    "Claim",
    "Draws",
    "Evidence",
    "Finding",
    "Judgement",
    "Paper",
    "judge",
]


def __getattr__(name: str) -> Any:
    if name == "packs":  # which imports this module
        return importlib.import_module(f"{__name__}.packs")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
