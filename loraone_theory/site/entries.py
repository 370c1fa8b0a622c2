"""What the pages show of each claim: the claim, its verdict's record, draws, and its neighbours."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loraone_theory.claims import Claim, Finding, Paper, sampled
from loraone_theory.claims.sampled import Sample

MODELS = ("linear", "ReLU", "sensing", "symmetric", "any")


class Entry(NamedTuple):
    """A claim with its verdict.

    Args:
        claim: the claim.
        paper: where it is from.
        record: of a verdict file.
        sample: a few of its draws; None where none were kept.
        used_by: ids of the claims that name it among what they rest on.
    """

    claim: Claim
    paper: Paper
    record: Mapping[str, Any]
    sample: Sample | None
    used_by: tuple[str, ...]

    @property
    def id(self) -> str:
        """Of the claim."""
        return self.claim.id

    @property
    def finding(self) -> Finding:
        """The verdict."""
        return Finding(self.record["verdict"])

    @property
    def statement(self) -> str:
        """Which statement of the paper it is of: "theorem-3.2" of "lora-one/theorem-3.2/alpha"."""
        rest = self.id.split("/")[1:]
        return "/".join(rest[: 2 if rest[0] in self.paper.sections and len(rest) > 1 else 1])

    @property
    def part(self) -> str:
        """What comes after that; "" for the statement itself."""
        return self.id.removeprefix(f"{self.paper.id}/{self.statement}").removeprefix("/")

    @property
    def model(self) -> str:
        """The model that it is about, as its hypotheses, statement and derivation say."""
        return model(self.claim)

    @property
    def source(self) -> tuple[Path, int]:
        """File and line where it is measured."""
        code = inspect.unwrap(self.claim.measure).__code__
        return Path(code.co_filename), code.co_firstlineno


def model(claim: Claim) -> str:
    """The model that a claim is about.

    >>> from loraone_theory.claims import CLAIMS
    >>> [model(CLAIMS[name]) for name in ("lora-one/theorem-4.2", "lora-one/theorem-3.1")]
    ['ReLU', 'linear']
    """
    text = " ".join((claim.title, claim.statement, *claim.hypotheses))
    if "ReLU" in text or claim.derivation.startswith("5"):
        return "ReLU"
    if "symmetric" in text or "UUᵀ" in text:
        return "symmetric"
    if any(word in text for word in ("measurements", "𝒜", "completion", "any ensemble")):
        return "sensing"
    linear = ("linear model", "Σ̂", "Gaussian X", "inputs", "rows", "Δ = Q diag(λ) Qᵀ", "sample x")
    if claim.derivation.startswith("3") or any(word in text for word in linear):
        return "linear"
    return "any"


def collected(
    papers: Sequence[Paper], records: Iterable[Mapping[str, Any]], draws: Path
) -> list[Entry]:
    """The claims of the papers that have a record, in the order of the papers."""
    known = {record["id"]: record for record in records}
    used_by: dict[str, list[str]] = {}
    for paper in papers:
        for claim in paper.claims:
            for other in claim.uses:
                used_by.setdefault(other, []).append(claim.id)
    return [
        Entry(
            claim,
            paper,
            known[claim.id],
            sampled.load(draws, dict(known[claim.id])),
            tuple(name for name in used_by.get(claim.id, ()) if name in known),
        )
        for paper in papers
        for claim in paper.claims
        if claim.id in known
    ]
