"""The claims, one file each. `CLAIMS` maps every id to its Claim."""

from loraone_theory.theorems import (
    eq8,
    p3_1,
    p3_2,
    p3_3,
    p3_4,
    p3_5,
    p3_6,
    p3_7,
    p3_8,
    p3_9,
    t3_1,
    t3_3,
)
from loraone_theory.theorems.base import Claim, Draws, Evidence, Finding, Judgement, judge

# In the order of the report.
_FILES = (
    t3_1,
    eq8,
    t3_3,
    p3_1,
    p3_2,
    p3_3,
    p3_4,
    p3_5,
    p3_6,
    p3_7,
    p3_8,
    p3_9,
)

CLAIMS: dict[str, Claim] = {claim.id: claim for file in _FILES for claim in file.CLAIMS}

__all__ = ["CLAIMS", "Claim", "Draws", "Evidence", "Finding", "Judgement", "judge"]
