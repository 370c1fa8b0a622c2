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
from loraone_theory.claims.evidence import whole
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

    Raises:
        TypeError, ValueError: evidence that is not whole (`evidence.whole`), or without what its
            kind asks for.
    """
    validate.instance("evidence", evidence, Evidence)
    validate.choice("kind", kind, get_args(Kind))
    validate.fraction("confidence", confidence)
    lhs, rhs, inside, slack = whole(evidence)
    n, kept = lhs.size, int(inside.sum())
    if kind == "certificate":
        return _judge_certificate(evidence)
    if kept == 0:
        reason = f"none of {n} draws meets the hypotheses"
        return Judgement(Finding.OUTSIDE_HYPOTHESES, reason, n, 0, float("nan"))
    lhs, rhs, slack = lhs[inside], rhs[inside], slack[inside]
    if kind == "value":
        return _judge_value(lhs, rhs, slack, _apart(evidence, inside), n, confidence)
    with np.errstate(invalid="ignore"):  # infinity less itself is NaN, and fails
        gap = np.abs(lhs - rhs) if kind == "identity" else lhs - rhs
    fails = ~(gap <= slack)
    worst = float(np.max(np.where(np.isnan(gap), np.inf, gap - slack)))
    if kind == "probability":
        apart = _apart(evidence, inside)
        return _judge_probability(evidence, fails, apart, n, worst, confidence)
    if fails.any():
        reason = f"{int(fails.sum())} of {kept} draws exceed the promise, by up to {worst:.3g}"
        return Judgement(Finding.VIOLATED, reason, n, kept, worst)
    return Judgement(Finding.SUPPORTED, f"holds on all {kept} draws", n, kept, worst)


def _apart(evidence: Evidence, inside: np.ndarray) -> list[np.ndarray]:
    """Which of the draws inside are of each setting; nothing where there is one alone."""
    if evidence.setting is None:
        return []
    given = np.asarray(evidence.setting)
    names = np.unique(given)
    return [given[inside] == name for name in names] if len(names) > 1 else []


def _refuting(confidence: float, settings: int) -> tuple[float, float]:
    """Of all draws together, and of those of one setting, the confidence to refute the claim at.

    One half of what may go wrong is for all together, the other shared out among the settings.
    """
    if not settings:
        return confidence, confidence
    return 1 - (1 - confidence) / 2, 1 - (1 - confidence) / (2 * settings)


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
    evidence: Evidence,
    fails: np.ndarray,
    apart: list[np.ndarray],
    n: int,
    worst: float,
    confidence: float,
) -> Judgement:
    kept, successes = len(fails), int((~fails).sum())
    promised = evidence.probability
    if promised is None:
        raise ValueError("evidence of kind 'probability' must state the promised probability")
    together, alone = _refuting(confidence, len(apart))
    low = stats.probability_sequence(successes, kept, confidence).low
    high = stats.probability_sequence(successes, kept, together).high
    counts = [(int((~fails[which]).sum()), int(which.sum())) for which in apart if which.any()]
    sizes = sorted(of for _, of in counts)
    highs = [stats.probability_sequence(*count, alone).high for count in counts]
    if high < promised:
        finding, text = Finding.VIOLATED, f"probability <= {high:.4f}"
    elif highs and min(highs) < promised:
        (some, of), finding = counts[int(np.argmin(highs))], Finding.VIOLATED
        text = f"in one setting {some} of {of}, probability <= {min(highs):.4f}"
    elif low >= promised:
        finding, text = Finding.SUPPORTED, f"probability >= {low:.4f}"
    else:
        finding, text = Finding.INCONCLUSIVE, f"probability in [{low:.4f}, {high:.4f}]"
    reason = f"{successes} of {kept} succeed: {text} against {promised:.4g} promised"
    if sizes:  # the share of all together says less of one that has few
        least, most = sizes[0], sizes[-1]
        each = f"{least} draws each" if least == most else f"{least} to {most} draws"
        reason += f", over {len(sizes)} settings of {each}"
    return Judgement(finding, reason, n, kept, worst)


def _judge_value(
    lhs: np.ndarray,
    rhs: np.ndarray,
    slack: np.ndarray,
    apart: list[np.ndarray],
    n: int,
    confidence: float,
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
    together, alone = _refuting(confidence, len(apart))
    if _off(stats.mean_sequence(lhs - rhs, together), allowance) > 0:
        return Judgement(Finding.VIOLATED, text, n, kept, worst)
    for which in apart:
        if which.sum() < 3:
            continue
        own, limit = stats.mean_sequence((lhs - rhs)[which], alone), float(slack[which].min())
        if _off(own, limit) > 0:
            center = float(rhs[which].mean())
            text += f"; in one setting {own.low + center:.5g} to {own.high + center:.5g}"
            return Judgement(Finding.VIOLATED, text, n, kept, max(worst, _off(own, limit)))
    finding = Finding.SUPPORTED if worst <= 0 else Finding.INCONCLUSIVE
    return Judgement(finding, text, n, kept, worst)


def _off(found: stats.Interval, allowance: float) -> float:
    """By how much a whole interval lies beyond the allowance; negative where it does not."""
    return max(found.low, -found.high) - allowance
