"""The measurement operators, one file each; `OPERATORS` holds those that can be drawn."""

from __future__ import annotations

from loraone_theory.problems.sensing.operators.completion import Completion
from loraone_theory.problems.sensing.operators.dense import Dense
from loraone_theory.problems.sensing.operators.given import Given
from loraone_theory.problems.sensing.operators.multi_response import MultiResponse
from loraone_theory.problems.sensing.operators.rank_one import RankOne
from loraone_theory.problems.sensing.operators.single_response import SingleResponse
from loraone_theory.problems.sensing.operators.symmetric import Symmetric

Drawable = (
    type[Dense]
    | type[Symmetric]
    | type[RankOne]
    | type[MultiResponse]
    | type[SingleResponse]
    | type[Completion]
)

# Name of an ensemble -> the operator that `sample_sensing` draws.
OPERATORS: dict[str, Drawable] = {
    "dense": Dense,
    "symmetric": Symmetric,
    "rank-one": RankOne,
    "multi-response": MultiResponse,
    "single-response": SingleResponse,
    "completion": Completion,
}

__all__ = [
    "OPERATORS",
    "Completion",
    "Dense",
    "Given",
    "MultiResponse",
    "RankOne",
    "SingleResponse",
    "Symmetric",
]
