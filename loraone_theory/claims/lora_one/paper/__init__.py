"""Statements of the paper, a file each, in the order of the report."""

from loraone_theory.claims.lora_one.paper import (
    algorithm_1,
    appendix_c2,
    appendix_c3,
    equation_8,
    figure_3,
    figure_4,
    lemma_d2,
    lemma_d5,
    section_2_3,
    theorem_3_1,
    theorem_3_2,
    theorem_3_2_best,
    theorem_3_2_proof,
    theorem_3_2_tail,
    theorem_3_3,
    theorem_4_2,
)

FILES = (
    theorem_3_1,
    theorem_3_2,
    theorem_3_2_tail,
    theorem_3_2_best,
    theorem_3_2_proof,
    equation_8,
    theorem_3_3,
    appendix_c2,
    appendix_c3,
    section_2_3,
    lemma_d2,
    lemma_d5,
    theorem_4_2,
    figure_3,
    figure_4,
    algorithm_1,
)
