"""The judge: from evidence to a finding.

Statements about single draws (identities, bounds) are decided by every draw. Probabilities and
values are decided by confidence sequences, which hold at every number of draws at once: a claim
may be looked at after each round of draws and stopped as soon as it is decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from loraone_theory.claims import stats
from loraone_theory.claims.base import Evidence, Finding, Kind
from loraone_theory.core import validate


@dataclass(frozen=True)
class Judgement:
    """The judge's answer: the finding, why, and the counts."""

    finding: Finding
    reason: str
    trials: int
    inside: int
    worst: float


def judge(evidence: Evidence, kind: Kind, confidence: float = 0.99) -> Judgement:
    """Decide a claim from its evidence.

    A NaN on a draw inside the hypotheses counts as a failure: what cannot be measured does not
    support.

    Args:
        evidence: one entry per draw.
        kind: identity, bound, probability, value or certificate.
        confidence: of this verdict alone; `stats.each` gives that of a verdict among many.
    """
    validate.instance("evidence", evidence, Evidence)
    validate.choice("kind", kind, get_args(Kind))
    validate.fraction("confidence", confidence)
    lhs = np.atleast_1d(np.asarray(evidence.lhs, dtype=np.float64))
    rhs = np.broadcast_to(np.asarray(evidence.rhs, dtype=np.float64), lhs.shape)
    inside = np.broadcast_to(np.asarray(evidence.inside, dtype=bool), lhs.shape)
    slack = np.broadcast_to(np.asarray(evidence.tolerance, dtype=np.float64), lhs.shape)
    n, kept = lhs.size, int(inside.sum())
    if kind == "certificate":
        return _judge_certificate(evidence)
    if kept == 0:
        reason = f"none of {n} draws meets the hypotheses"
        return Judgement(Finding.OUTSIDE_HYPOTHESES, reason, n, 0, float("nan"))
    lhs, rhs, slack = lhs[inside], rhs[inside], slack[inside]
    if kind == "value":
        return _judge_value(lhs, rhs, slack, n, confidence)
    gap = np.abs(lhs - rhs) if kind == "identity" else lhs - rhs
    fails = ~(gap <= slack)
    worst = float(np.max(np.where(np.isnan(gap), np.inf, gap - slack)))
    if kind == "probability":
        return _judge_probability(evidence, fails, n, worst, confidence)
    if fails.any():
        reason = f"{int(fails.sum())} of {kept} draws exceed the promise, by up to {worst:.3g}"
        return Judgement(Finding.VIOLATED, reason, n, kept, worst)
    return Judgement(Finding.SUPPORTED, f"holds on all {kept} draws", n, kept, worst)


def _judge_certificate(evidence: Evidence) -> Judgement:
    found = evidence.certificate
    if found is None:
        raise ValueError("evidence of kind 'certificate' must hold the certificate")
    size = f"{found.boxes} boxes, the smallest halved {found.depth} times"
    if found.proved:
        finding, reason = Finding.CERTIFIED, f"proved on the whole domain, by {size}"
    elif found.counterexample:
        finding, reason = Finding.VIOLATED, f"refuted: {found.counterexample}"
    else:
        finding, reason = Finding.INCONCLUSIVE, f"{found.undecided} is left open after {size}"
    return Judgement(finding, reason, 1, 1, 0.0 if found.proved else 1.0)


def _judge_probability(
    evidence: Evidence, fails: np.ndarray, n: int, worst: float, confidence: float
) -> Judgement:
    kept, successes = len(fails), int((~fails).sum())
    promised = evidence.probability
    if promised is None:
        raise ValueError("evidence of kind 'probability' must state the promised probability")
    bounds = stats.probability_sequence(successes, kept, confidence)
    if bounds.low >= promised:
        finding, text = Finding.SUPPORTED, f"probability >= {bounds.low:.4f}"
    elif bounds.high < promised:
        finding, text = Finding.VIOLATED, f"probability <= {bounds.high:.4f}"
    else:
        finding = Finding.INCONCLUSIVE
        text = f"probability in [{bounds.low:.4f}, {bounds.high:.4f}]"
    reason = f"{successes} of {kept} succeed: {text} against {promised:.4g} promised"
    return Judgement(finding, reason, n, kept, worst)


def _judge_value(
    lhs: np.ndarray, rhs: np.ndarray, slack: np.ndarray, n: int, confidence: float
) -> Judgement:
    kept = len(lhs)
    if not np.isfinite(lhs).all():
        reason = f"{int((~np.isfinite(lhs)).sum())} of {kept} draws could not be measured"
        return Judgement(Finding.VIOLATED, reason, n, kept, float("inf"))
    if kept < 3:
        return Judgement(Finding.INCONCLUSIVE, f"{kept} draws; at least 3", n, kept, float("nan"))
    found = stats.mean_sequence(lhs - rhs, confidence)
    allowance, promised = float(slack.min()), float(rhs.mean())
    worst = max(found.high, -found.low) - allowance
    text = (
        f"{found.estimate + promised:.5g} in [{found.low + promised:.5g}, "
        f"{found.high + promised:.5g}] against {promised:.5g} ± {allowance:.2g} promised"
    )
    if worst <= 0:
        finding = Finding.SUPPORTED
    elif found.low > allowance or found.high < -allowance:
        finding = Finding.VIOLATED
    else:
        finding = Finding.INCONCLUSIVE
    return Judgement(finding, text, n, kept, worst)
