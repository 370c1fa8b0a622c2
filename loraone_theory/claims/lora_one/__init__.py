"""LoRA-One (arXiv 2502.01235): the paper's statements, what is proved beyond it, discrepancies."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.lora_one import discrepancies, linear, paper, relu

PAPER = Paper(
    "lora-one",
    "LoRA-One",
    "Zhang, Liu, Chen, ICML 2025, arXiv 2502.01235",
    (*paper.FILES, *linear.FILES, *relu.FILES, *discrepancies.FILES),
    sections={
        "linear": "Results of our own on the linear model",
        "relu": "The ReLU model: closed forms and laws",
        "discrepancies": "Discrepancies between paper, code, notebook and README",
    },
)
