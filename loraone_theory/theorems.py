"""The former name of `loraone_theory.claims`."""

import warnings

from loraone_theory.claims import CLAIMS, Claim, Draws, Evidence, Finding, Judgement, judge

warnings.warn(
    "loraone_theory.theorems is now loraone_theory.claims", DeprecationWarning, stacklevel=2
)

__all__ = ["CLAIMS", "Claim", "Draws", "Evidence", "Finding", "Judgement", "judge"]
