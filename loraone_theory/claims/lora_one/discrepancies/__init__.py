"""Where paper, released code, notebook and PEFT differ."""

from loraone_theory.claims.lora_one.discrepancies import (
    diag_s,
    notebook,
    peft_lora_ga,
    rank_order,
    relu_shortfall,
    step_condition,
    three_gammas,
    two_lora_ones,
)

FILES = (
    diag_s,
    three_gammas,
    two_lora_ones,
    notebook,
    step_condition,
    rank_order,
    relu_shortfall,
    peft_lora_ga,
)
