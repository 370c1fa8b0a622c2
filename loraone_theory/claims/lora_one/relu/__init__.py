"""What is proved and measured here of the ReLU model."""

from loraone_theory.claims.lora_one.relu import (
    choice_of_weight,
    closed_forms,
    deficient_rank,
    derivative,
    excess_rank,
    gradient_cost,
    one_step,
    rates,
    sharp_lemmas,
)

FILES = (
    derivative,
    closed_forms,
    sharp_lemmas,
    one_step,
    rates,
    excess_rank,
    deficient_rank,
    choice_of_weight,
    gradient_cost,
)
