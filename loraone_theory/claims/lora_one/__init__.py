"""LoRA-One (arXiv 2502.01235): the paper's statements, what is proved beyond it, discrepancies."""

from loraone_theory.claims.lora_one import discrepancies, linear, paper, relu

# In the order of the report.
FILES = (*paper.FILES, *linear.FILES, *discrepancies.FILES, *relu.FILES)
