"""Matrix sensing: label noise, laws of the inputs, measurement ensembles, sampled gradients."""

from loraone_theory.claims.base import Paper
from loraone_theory.claims.sensing import (
    dense_sensing,
    early_stopping,
    equivalence,
    flow,
    input_laws,
    isometry,
    local_rates,
    noise_floor,
    noise_law,
    one_step,
    online,
    over_rank,
    spectrum,
    symmetric,
)

FILES = (
    equivalence,
    noise_law,
    noise_floor,
    one_step,
    early_stopping,
    input_laws,
    spectrum,
    dense_sensing,
    isometry,
    local_rates,
    online,
    flow,
    symmetric,
    over_rank,
)
PAPER = Paper("sensing", "Matrix sensing", "docs/derivations_sensing.md", FILES)
