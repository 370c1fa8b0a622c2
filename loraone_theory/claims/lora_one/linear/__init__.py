"""What is proved here of the linear model beyond the paper."""

from loraone_theory.claims.lora_one.linear import (
    exact_law,
    floors,
    invariances,
    local_rates,
    lora_pro,
    one_step,
    other_rules,
    plateau,
    reduction,
    sample_size,
)

FILES = (
    invariances,
    reduction,
    exact_law,
    one_step,
    floors,
    plateau,
    local_rates,
    other_rules,
    sample_size,
    lora_pro,
)
