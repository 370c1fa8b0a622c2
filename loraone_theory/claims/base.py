"""Claims, the evidence they are judged by, and the judge.

A claim measures; the judge decides. Evidence holds one entry per draw: what was measured (`lhs`),
what was promised (`rhs`) and whether the hypotheses held (`inside`); draws outside are counted and
never taken as support.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from loraone_theory.claims import stats

Kind = Literal["identity", "bound", "probability", "value"]


class Finding(StrEnum):
    """What the numbers say of a claim."""

    SUPPORTED = "SUPPORTED"
    VIOLATED = "VIOLATED"
    INCONCLUSIVE = "INCONCLUSIVE"
    OUTSIDE_HYPOTHESES = "OUTSIDE HYPOTHESES"


@dataclass(frozen=True)
class Draws:
    """How many draws, from which master seed; `smoke` asks for the smallest sizes."""

    trials: int
    seed: int = 0
    smoke: bool = False

    def seeds(self, count: int | None = None, block: int = 0) -> tuple[int, ...]:
        """`count` seeds (default: one per trial), different for every master seed and block."""
        first = (self.seed * 1000 + block) * 100_000
        return tuple(range(first, first + (self.trials if count is None else count)))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a claim measured.

    - identity: |lhs − rhs| <= tolerance on every draw inside the hypotheses.
    - bound: lhs <= rhs + tolerance on every draw inside.
    - probability: lhs <= rhs + tolerance on a fraction of at least `probability` of the draws.
    - value: the mean of lhs over independent draws is rhs; its confidence interval, widened by
      `tolerance` on both sides (a finite-size allowance that the claim states beforehand), holds
      rhs or not.

    Args:
        lhs: (n,) measured.
        rhs: (n,) promised, or one number.
        inside: (n,) whether the hypotheses hold, or one boolean.
        tolerance: (n,) or one number, derived from dtype, size and conditioning.
        probability: promised probability, for that kind.
        numbers: further figures for the report, by name.
    """

    lhs: np.ndarray
    rhs: np.ndarray | float
    inside: np.ndarray | bool = True
    tolerance: np.ndarray | float = 0.0
    probability: float | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)


Measure = Callable[[Draws], Evidence]


@dataclass(frozen=True, eq=False)
class Claim:
    """A statement, how it is measured, and a broken version of it that must be found out.

    Args:
        id: its name in the specification, for example "T3.1".
        title: a few words.
        reference: theorem, equation or section of the paper, or of docs/derivations.md.
        statement: in the paper's notation.
        hypotheses: under which it is claimed, one string each.
        how: how it is tested, on which sizes.
        kind: identity, bound, probability or value.
        measure: draws -> Evidence.
        mutant_statement: the claim broken on purpose.
        mutant: draws -> Evidence of the broken claim; it must come out VIOLATED.
        trials: draws at full size.
        smoke_trials: draws of a smoke run.
        expected: the verdict expected at full size.
        explanation: why, where that is not SUPPORTED, or what limits the support.
        derivation: anchor in docs/derivations.md, or "".
        figure: file name under figures/, or "".
    """

    id: str
    title: str
    reference: str
    statement: str
    hypotheses: tuple[str, ...]
    how: str
    kind: Kind
    measure: Measure
    mutant_statement: str
    mutant: Measure
    trials: int
    smoke_trials: int
    expected: Finding = Finding.SUPPORTED
    explanation: str = ""
    derivation: str = ""
    figure: str = ""


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
    """
    lhs = np.atleast_1d(np.asarray(evidence.lhs, dtype=np.float64))
    rhs = np.broadcast_to(np.asarray(evidence.rhs, dtype=np.float64), lhs.shape)
    inside = np.broadcast_to(np.asarray(evidence.inside, dtype=bool), lhs.shape)
    slack = np.broadcast_to(np.asarray(evidence.tolerance, dtype=np.float64), lhs.shape)
    n, kept = lhs.size, int(inside.sum())
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


def _judge_probability(
    evidence: Evidence, fails: np.ndarray, n: int, worst: float, confidence: float
) -> Judgement:
    kept, successes = len(fails), int((~fails).sum())
    promised = evidence.probability
    if promised is None:
        raise ValueError("evidence of kind 'probability' must state the promised probability")
    bounds = stats.clopper_pearson(successes, kept, confidence)
    if bounds.low >= promised:
        finding, text = Finding.SUPPORTED, f"probability >= {bounds.low:.4f}"
    elif bounds.high < promised:
        finding, text = Finding.VIOLATED, f"probability <= {bounds.high:.4f}"
    else:
        least = stats.trials_needed(promised, confidence)
        finding = Finding.INCONCLUSIVE
        text = f"probability in [{bounds.low:.4f}, {bounds.high:.4f}]; at least {least} trials"
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
    found = stats.mean_interval(lhs - rhs, confidence)
    allowance, promised = float(slack.max()), float(rhs.mean())
    low, high = found.low - allowance, found.high + allowance
    worst = max(low, -high)
    text = (
        f"{found.estimate + promised:.5g} in [{found.low + promised:.5g}, "
        f"{found.high + promised:.5g}] against {promised:.5g} promised, allowance {allowance:.2g}"
    )
    finding = Finding.SUPPORTED if low <= 0 <= high else Finding.VIOLATED
    return Judgement(finding, text, n, kept, worst)
