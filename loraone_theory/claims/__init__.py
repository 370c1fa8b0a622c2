"""The claims: a folder for each paper, a file for each statement. `CLAIMS` maps ids to claims."""

from loraone_theory.claims import lora_one
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.judge import Judgement, judge

# In the order of the report.
PAPERS = (lora_one,)

CLAIMS: dict[str, Claim] = {
    claim.id: claim for paper in PAPERS for file in paper.FILES for claim in file.CLAIMS
}

__all__ = ["CLAIMS", "Claim", "Draws", "Evidence", "Finding", "Judgement", "judge"]
