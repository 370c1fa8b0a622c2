"""Run claims and their mutants, and keep what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Claim, Draws, Evidence, Finding, Judgement, judge, stats
from loraone_theory.claims.base import Measure
from loraone_theory.claims.verdict import Store
from loraone_theory.claims.verdict import Verdict as Verdict
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
        claim: an id or alias of `CLAIMS`, or a Claim.
        trials: draws; by default the claim's own number, doubled until it is decided or capped.
        confidence: that no verdict of a whole run is wrong by luck (`stats.each`); a smoke run
            decides each verdict at this level.
        seed: master seed >= 0.
        smoke: use the smallest sizes.

    Raises:
        ValueError: an unknown id, or a number out of range.

    >>> str(verify("lora-one/theorem-3.1", trials=5))
    'SUPPORTED'
    """
    if not isinstance(claim, Claim):
        claim = CLAIMS.find(claim)
    _check(trials, confidence, seed, smoke)
    rounds = claim.rounds(smoke=smoke) if trials is None else (trials,)
    level = confidence if smoke else stats.each(confidence)
    start = time.perf_counter()
    # Claims work on many small matrices, for which a second thread costs more than it brings.
    with threads_for(0, torch.device("cpu")):
        count, evidence, found = _decided(claim, claim.measure, rounds, seed, smoke, level)
        _, _, broken = _decided(claim, claim.mutant, rounds, seed, smoke, level)
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


def _check(trials: Any, confidence: Any, seed: Any, smoke: Any) -> None:
    if trials is not None:
        validate.integer("trials", trials, least=1)
    validate.fraction("confidence", confidence)
    validate.integer("seed", seed, least=0)
    validate.flag("smoke", smoke)


def _decided(
    claim: Claim, measure: Measure, rounds: Sequence[int], seed: int, smoke: bool, level: float
) -> tuple[int, Evidence, Judgement]:
    """Draws, evidence and judgement after the first round that decides, or after the last."""
    for count in rounds:
        evidence = measure(Draws(count, seed, smoke))
        found = judge(evidence, claim.kind, level)
        if found.finding is not Finding.INCONCLUSIVE:
            break
    return count, evidence, found


def _about(claim: Claim) -> dict[str, Any]:
    """The claim in words, so that a report needs the record alone."""
    return {name: getattr(claim, name) for name in DESCRIBED}


def chosen(names: Sequence[str] = (), *, paper: str | None = None, long: bool = False) -> list[str]:
    """The ids of the names, each once; without names those of all claims that qualify.

    Args:
        names: ids or aliases.
        paper: without names, the claims of this paper alone.
        long: without names, the claims that take long, in place of those that do not.

    Raises:
        ValueError: an unknown name or paper, or names together with `paper` or `long`.
    """
    validate.flag("long", long)
    if names and (paper is not None or long):
        raise ValueError("claims must not be named together with paper or long; leave one out")
    if names:
        return list(dict.fromkeys(CLAIMS.find(name).id for name in names))
    if paper is not None:
        validate.choice("paper", paper, dict.fromkeys(c.paper for c in CLAIMS.values()))
    return [i for i, c in CLAIMS.items() if c.long == long and paper in (None, c.paper)]


def verify_all(
    names: Sequence[str] = (),
    *,
    trials: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    smoke: bool = False,
    paper: str | None = None,
    long: bool = False,
    json: str | Path | None = None,
    report: Callable[[Verdict], object] | None = None,
) -> list[Verdict]:
    """Several claims, each reported as it is decided.

    Without names these are all that do not take long, or with `long` all that do; with `paper`
    only those of that paper.

    With `json`, their records go to that file, where they replace those of the same ids; others in
    it stay. Finished claims are kept in the .partial.json beside it as they come: a later call with
    the same arguments and the same code takes them over, and they are dropped there once they are
    in the file.
    """
    names = validate.sequence("names", names, "ids of claims")
    if report is not None:
        validate.function("report", report)
    _check(trials, confidence, seed, smoke)
    validate.flag("long", long)
    wanted = chosen(names, paper=paper, long=long)
    asked = {"trials": trials, "confidence": confidence, "seed": seed, "smoke": smoke}
    store = None if json is None else Store(storage.as_path(json), asked)
    verdicts = []
    for name in wanted:
        verdict = None if store is None else store.done.get(name)
        if verdict is None:
            verdict = verify(name, trials=trials, confidence=confidence, seed=seed, smoke=smoke)
            if store is not None:
                store.keep(verdict)
        verdicts.append(verdict)
        if report is not None:
            report(verdict)
    if store is not None:
        store.finish(verdicts)
    return verdicts
