"""Names as types, so that an editor completes them; the tests hold them to the registries.

Any string is accepted where they stand: what is no name is refused by a message at run time.
"""

from __future__ import annotations

from typing import Literal

MethodName = Literal[
    "full",
    "full-adamw",
    "full-flow",
    "lora",
    "flow",
    "lora-momentum",
    "lora-adamw",
    "rslora",
    "lora+",
    "lora+-adamw",
    "p-lora",
    "p-lora-adamw",
    "p-lora-alternating",
    "lora-spectral-scaled",
    "muon",
    "lora-muon",
    "lora-rite",
    "nystrom",
    "lora-pro",
    "lora-pro-adamw",
    "adalora",
    "pissa",
    "milora",
    "olora",
    "lora-xs",
    "lora-ga",
    "lora-sb",
    "lora-one",
    "lora-one-preconditioned",
    "lora-one-adamw",
    "lora-one-scaled-adamw",
    "lora-one-whitened",
    "lora-one-released",
    "lora-one-early",
]
RecordName = Literal[
    "loss",
    "risk",
    "error",
    "left_alignment",
    "right_alignment",
    "left_angles",
    "right_angles",
    "balance",
    "singular_values",
    "nuclear_norm",
    "stable_rank",
    "gradient_norm",
    "sharpness",
    "test_loss",
]
RuleName = Literal[
    "adamw",
    "alternating",
    "flow",
    "gauss-newton",
    "gd",
    "lora-muon",
    "lora-plus",
    "lora-pro",
    "lora-rite",
    "momentum",
    "muon",
    "preconditioned",
    "scaled-adamw",
    "spectral-scaled",
    "whitened",
]
EnsembleName = Literal[
    "dense",
    "symmetric",
    "rank-one",
    "multi-response",
    "single-response",
    "completion",
]
InputLaw = Literal["gaussian", "rademacher", "sphere", "student", "elliptic"]
Sampling = Literal["with-replacement", "epochs", "fresh"]
