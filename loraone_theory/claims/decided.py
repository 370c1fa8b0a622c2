"""A measurement, round after round of draws, until it is decided."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, Measure
from loraone_theory.claims.judge import Judgement, judge
from loraone_theory.core.faults import BrokenClaim


def decided(
    claim: Claim,
    part: Literal["measure", "mutant"],
    rounds: Sequence[int],
    first: Draws,
    level: float,
) -> tuple[Draws, Evidence, Judgement]:
    """Draws, evidence and judgement after the first round that decides, or after the last.

    Args:
        claim: which.
        part: the claim's own measurement, or its mutant's.
        rounds: draws after which the judge looks.
        first: master seed and whatever else the draws are made with.
        level: confidence of the judgement.

    Raises:
        BrokenClaim: the measurement raised an error, or what it gave cannot be judged.
    """
    measure: Measure = getattr(claim, part)
    who = f"claim {claim.id!r}" if part == "measure" else f"the mutant of claim {claim.id!r}"
    who = f"{who} ({_file(measure)})"
    for count in rounds:
        draws = replace(first, trials=count, handed={})
        try:
            evidence = measure(draws)
        except (Exception, SystemExit) as error:
            raise BrokenClaim(
                f"{who} must give evidence; with {count} draws of master seed {first.seed} it "
                f"raised {type(error).__name__}: {error}; mend it, or leave it out"
            ) from error
        try:
            found = judge(evidence, claim.kind, level)
        except (TypeError, ValueError) as error:
            raise BrokenClaim(f"{who} cannot be judged: {error}") from error
        if found.finding is not Finding.INCONCLUSIVE:
            break
    return draws, evidence, found


def _file(measure: Any) -> str:
    """The file that has the code of a measurement, as far as it can be told."""
    while isinstance(measure, functools.partial):
        measure = measure.func
    code = getattr(inspect.unwrap(measure), "__code__", None)
    return str(getattr(code, "co_filename", type(measure).__module__))
