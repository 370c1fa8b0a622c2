"""Run claims and their mutants, and keep what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Claim, Draws, Finding, judge
from loraone_theory.core import validate
from loraone_theory.core.threads import threads_for

# What a record says of its claim besides the numbers.
DESCRIBED = (
    "title",
    "reference",
    "statement",
    "hypotheses",
    "how",
    "kind",
    "mutant_statement",
    "explanation",
    "derivation",
    "figure",
)


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of one claim, with all that a report needs.

    `finding` is the answer; `as_expected` also asks that the mutant was found out.
    """

    id: str
    finding: Finding
    expected: Finding
    reason: str
    trials: int
    inside: int
    worst: float
    confidence: float
    mutant: Finding
    mutant_reason: str
    seed: int
    smoke: bool
    requested: int
    seconds: float
    numbers: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.finding.value

    @property
    def conclusive(self) -> bool:
        """Whether the draws decided anything."""
        return self.finding is not Finding.INCONCLUSIVE

    @property
    def as_expected(self) -> bool:
        """Whether claim and mutant came out as the library expects them to.

        A smoke run has few draws, so there INCONCLUSIVE is taken as not contradicting.
        """
        if self.smoke and not self.conclusive:
            return True
        return self.finding is self.expected and self.mutant is Finding.VIOLATED

    def to_record(self) -> dict[str, Any]:
        """The JSON object: `id`, `verdict`, `expected`, `trials`, `mutant_verdict`, ..."""
        record = asdict(self)
        record["verdict"] = record.pop("finding")
        record["mutant_verdict"] = record.pop("mutant")
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Verdict:
        """The inverse of `to_record`."""
        values = dict(record)
        values["finding"] = Finding(values.pop("verdict"))
        values["mutant"] = Finding(values.pop("mutant_verdict"))
        values["expected"] = Finding(values["expected"])
        return cls(**values)


def verify(
    claim: str | Claim,
    *,
    trials: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    smoke: bool = False,
) -> Verdict:
    """Measure one claim and its mutant, and judge both.

    Args:
        claim: an id of `CLAIMS`, or a Claim.
        trials: draws; by default the claim's own number.
        confidence: of intervals and one-sided bounds.
        seed: master seed >= 0.
        smoke: use the smallest sizes.

    Raises:
        ValueError: an unknown id, or a number out of range.

    >>> str(verify("T3.1", trials=5))
    'SUPPORTED'
    """
    if not isinstance(claim, Claim):
        claim = CLAIMS[validate.choice("claim", claim, CLAIMS)]
    default = claim.smoke_trials if smoke else claim.trials
    count = default if trials is None else validate.integer("trials", trials, least=1)
    draws = Draws(count, validate.integer("seed", seed, least=0), smoke)
    start = time.perf_counter()
    # Claims work on many small matrices, for which a second thread costs more than it brings.
    with threads_for(0, torch.device("cpu")):
        evidence = claim.measure(draws)
        broken = judge(claim.mutant(draws), claim.kind, confidence)
    found = judge(evidence, claim.kind, confidence)
    return Verdict(
        id=claim.id,
        finding=found.finding,
        expected=claim.expected,
        reason=found.reason,
        trials=found.trials,
        inside=found.inside,
        worst=found.worst,
        confidence=confidence,
        mutant=broken.finding,
        mutant_reason=broken.reason,
        seed=seed,
        smoke=smoke,
        requested=count,
        seconds=time.perf_counter() - start,
        numbers=dict(evidence.numbers),
        about=_about(claim),
    )


def _about(claim: Claim) -> dict[str, Any]:
    """The claim in words, so that a report needs the record alone."""
    return {name: getattr(claim, name) for name in DESCRIBED}


def verify_all(
    names: Sequence[str] = (),
    *,
    trials: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    smoke: bool = False,
    progress_file: str | Path | None = None,
    report: Callable[[Verdict], object] | None = None,
) -> list[Verdict]:
    """Several claims (all by default), each reported as it is decided.

    With `progress_file`, finished claims are kept there as they come; a later call with the same
    arguments takes them over, and the file is removed once all are done.
    """
    for name in names:
        validate.choice("claim", name, CLAIMS)
    wanted = list(names) or list(CLAIMS)
    asked = {"trials": trials, "confidence": confidence, "seed": seed, "smoke": smoke}
    kept = Path(progress_file) if progress_file is not None else None
    done = {verdict.id: verdict for verdict in _taken_over(kept, asked)}
    verdicts = []
    for name in wanted:
        if name not in done:
            done[name] = verify(name, trials=trials, confidence=confidence, seed=seed, smoke=smoke)
            if kept is not None:
                state = {"asked": asked, "done": [v.to_record() for v in done.values()]}
                storage.save_json(kept, state)
        verdicts.append(done[name])
        if report is not None:
            report(done[name])
    if kept is not None:
        kept.unlink(missing_ok=True)
    return verdicts


def _taken_over(kept: Path | None, asked: dict[str, Any]) -> Iterator[Verdict]:
    if kept is None or not kept.exists():
        return
    state = storage.load_json(kept)
    if state["asked"] == asked:
        yield from (Verdict.from_record(record) for record in state["done"])
