"""What the judge relies on in a claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from loraone_theory.claims import CLAIMS
from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.claims.evidence import whole
from loraone_theory.claims.judge import Judgement, judge
from loraone_theory.claims.registry import Registry
from loraone_theory.core import validate
from loraone_theory.testing.base import ContractError, require

LEVEL = 0.99
COUNTED = ("probability", "value")  # kinds that are decided from all draws together
FEW = 4  # draws that are looked for among all
DOUBLED = 4  # times that the draws of a mutant are doubled where they decide nothing


def check_claim(claim: Claim, *, trials: int | None = None, seed: int = 0) -> None:
    """Hold a claim to what a verdict relies on; nothing is returned.

    It says in words what it claims and how it is tested, and rests on claims that are known; its
    draws are a function of the master seed alone, whatever the global random states; its evidence
    is whole (one entry per draw, a finite promise and tolerance, plain numbers for the report, a
    promised probability where it is one); how many entries it has does not hang on what comes out;
    of a probability or a mean, every draw has an entry, another master seed gives other ones, and
    more draws go on where fewer stopped, which the judge relies on where it looks more than once;
    in float32, where it is stated in it, it gives other numbers; a smoke run does not contradict
    the expected verdict; and its mutant, measured in the same way, is found out, by numbers and not
    by what could not be measured.

    Args:
        claim: which.
        trials: draws, of the smallest sizes; by default those of a smoke run. A mutant that is left
            open by them gets more.
        seed: master seed.

    Raises:
        ContractError: a promise is broken; the message says which.

    >>> from loraone_theory.claims import CLAIMS
    >>> check_claim(CLAIMS["lora-one/linear/one-step"])
    """
    validate.instance("claim", claim, Claim)
    if trials is not None:
        validate.integer("trials", trials, least=1)
    check_words(claim)
    draws = Draws(claim.smoke_trials if trials is None else trials, seed, smoke=True)
    evidence = _measured(claim, "measure", draws)
    if claim.kind != "certificate":
        _few(claim, draws, evidence)
    found = judge(evidence, claim.kind, LEVEL)
    allowed = {claim.expected}
    if claim.kind in COUNTED:  # which a few draws need not decide
        allowed.add(Finding.INCONCLUSIVE)
    require(
        found.finding in allowed,
        f"claim {claim.id!r} must come out {claim.expected}; got {_told(found)}",
    )
    if found.finding is Finding.VIOLATED:
        by_numbers = judge(_measurable(evidence), claim.kind, LEVEL)
        require(
            by_numbers.finding is Finding.VIOLATED,
            f"claim {claim.id!r} must come out VIOLATED by numbers, not by NaN alone; without the "
            f"draws that give NaN it is {_told(by_numbers)}",
        )
    broken = _measured(claim, "mutant", draws)
    for doubled in range(1, DOUBLED + 1):
        if judge(_measurable(broken), claim.kind, LEVEL).finding is not Finding.INCONCLUSIVE:
            break
        broken = claim.mutant(Draws(draws.trials << doubled, seed, smoke=True))
    who = f"the mutant of claim {claim.id!r} ({claim.mutant_statement})"
    found = judge(broken, claim.kind, LEVEL)
    require(
        found.finding is Finding.VIOLATED,
        f"{who} must come out VIOLATED, or the check cannot fail; got {_told(found)}",
    )
    by_numbers = judge(_measurable(broken), claim.kind, LEVEL)
    require(
        by_numbers.finding is Finding.VIOLATED,
        f"{who} must be found out by numbers, not by NaN alone; without the draws that give NaN it "
        f"is {_told(by_numbers)}",
    )


def check_words(claim: Claim) -> None:
    """The part of `check_claim` that measures nothing.

    Raises:
        ContractError: a text is missing, or a number of draws is out of range.
        ValueError: its id is not of the form of ids.
    """
    Registry([claim])
    for name in ("title", "reference", "statement", "how", "mutant_statement"):
        text = getattr(claim, name)
        require(
            isinstance(text, str) and bool(text.strip()),
            f"claim {claim.id!r} must say its {name}; got {text!r}",
        )
    require(
        all(text.strip() for text in claim.hypotheses),
        f"the hypotheses of claim {claim.id!r} must be texts, none of them empty",
    )
    papers = {known.partition("/")[0] for known in CLAIMS}
    unknown = [
        name
        for name in claim.uses
        if name not in CLAIMS and name.partition("/")[0] in papers - {claim.paper}
    ]
    require(
        not unknown,
        f"claim {claim.id!r} must rest on claims that there are, under their ids of today; got "
        f"{', '.join(unknown)} in uses",
    )
    require(
        claim.mutant is not claim.measure,
        f"the mutant of claim {claim.id!r} must be another measurement than the claim's own",
    )
    require(
        bool(claim.explanation) or claim.expected in (Finding.SUPPORTED, Finding.CERTIFIED),
        f"claim {claim.id!r} is expected to be {claim.expected}; its explanation must say why",
    )


def _measured(claim: Claim, name: str, draws: Draws) -> Evidence:
    """The evidence, held to its form and to being a function of the draws."""
    who = f"{name} of claim {claim.id!r}"
    measure: Any = getattr(claim, name)
    evidence = _with_global_seed(measure, draws, 1)
    require(isinstance(evidence, Evidence), f"{who} must return Evidence; got {evidence!r:.80}")
    try:
        parts = whole(evidence)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{who} must give whole evidence: {error}") from error
    require(parts.lhs.size > 0, f"{who} must have lhs of shape (n,), n >= 1; got none")
    if claim.kind == "probability":
        promised = evidence.probability
        require(
            promised is not None and 0 < promised < 1,
            f"{who} must state the promised probability, between 0 and 1; got {promised!r}",
        )
    rhs, tolerance = parts.rhs[parts.inside], parts.tolerance[parts.inside]
    require(  # a mutant may promise the infinite: what it makes of the claim's promise
        bool(np.isfinite(rhs).all() if name == "measure" else not np.isnan(rhs).any()),
        f"{who} must promise finite numbers; got rhs = {rhs[~np.isfinite(rhs)][:1]} on a draw "
        "inside the hypotheses",
    )
    require(
        bool((np.isfinite(tolerance) & (tolerance >= 0)).all()),
        f"{who} must have finite tolerances >= 0; got {float(tolerance.min(initial=np.inf)):g} to "
        f"{float(tolerance.max(initial=-np.inf)):g}",
    )
    again = _with_global_seed(measure, draws, 2)
    same = all(
        np.array_equal(np.asarray(getattr(evidence, part)), np.asarray(getattr(again, part)), True)
        for part in ("lhs", "rhs", "inside", "tolerance")
    )
    require(same, f"{who} must draw from the master seed alone: twice the same gave other numbers")
    return evidence


def _few(claim: Claim, draws: Draws, evidence: Evidence) -> None:
    """A few draws, of this master seed and of the next, against all of them."""
    few = replace(draws, trials=max(1, min(FEW, draws.trials // 2)), handed={})
    fewer = whole(claim.measure(few))
    other = whole(claim.measure(replace(few, seed=draws.seed + 1, handed={})))
    require(
        fewer.lhs.size == other.lhs.size,
        f"how many entries claim {claim.id!r} has must not hang on what comes out: {few.trials} "
        f"draws give {fewer.lhs.size}, and {other.lhs.size} of another master seed; keep the "
        "others too, with inside=False where they break a hypothesis",
    )
    if claim.kind in COUNTED:
        require(
            fewer.lhs.size >= few.trials and evidence.lhs.size >= draws.trials,
            f"claim {claim.id!r} must have an entry for each draw; got {fewer.lhs.size} of "
            f"{few.trials} draws, {evidence.lhs.size} of {draws.trials}",
        )
        require(
            not np.array_equal(fewer.lhs, other.lhs, equal_nan=True)
            or (claim.kind == "probability" and _of_few_values(fewer.lhs)),
            f"claim {claim.id!r} must draw from its seeds: another master seed gave the same "
            f"{fewer.lhs.size} numbers",
        )
        _goes_on(claim, few, fewer.lhs, draws, evidence)
    if "float32" in claim.dtypes:
        narrow = whole(claim.measure(replace(few, dtype="float32", handed={})))
        require(
            not np.array_equal(fewer.lhs, narrow.lhs, equal_nan=True),
            f"claim {claim.id!r} is stated in float32 and must compute in it (Draws.dtype): there "
            f"it gave the same {fewer.lhs.size} numbers as in float64",
        )


def _of_few_values(lhs: np.ndarray) -> bool:
    """Whether the same values may come again by chance, as zeros and ones do."""
    return len(np.unique(lhs)) <= 2


def _goes_on(claim: Claim, few: Draws, fewer: np.ndarray, draws: Draws, evidence: Evidence) -> None:
    """What fewer draws give is among what all of them give, up to rounding."""
    every = np.asarray(evidence.lhs, dtype=np.float64)
    fewer, every = fewer[np.isfinite(fewer)], every[np.isfinite(every)]
    sizes = [np.abs(each).max(initial=0.0) for each in (every, evidence.rhs, evidence.tolerance)]
    allowed = np.finfo(np.float64).eps ** 0.5 * max(sizes)
    missed = [x for x in fewer if not (np.abs(every - x) <= allowed).any()]
    require(
        not missed,
        f"more draws of claim {claim.id!r} must go on where fewer stopped: {len(missed)} of "
        f"{len(fewer)} values of {few.trials} draws are not among those of {draws.trials}; let a "
        "draw hang on its own seed alone (Draws.seeds, Draws.normals)",
    )


def _measurable(evidence: Evidence) -> Evidence:
    """Without the draws that give NaN, which count as failures."""
    parts = whole(evidence)
    with np.errstate(invalid="ignore"):  # infinity less itself
        missing = np.isnan(parts.lhs - parts.rhs)
    return replace(evidence, inside=parts.inside & ~missing) if missing.any() else evidence


def _with_global_seed(measure: Any, draws: Draws, seed: int) -> Any:
    """The measurement, from fresh draws and with these global random states, which are restored."""
    states = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        return measure(Draws(draws.trials, draws.seed, draws.smoke))
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        torch.set_rng_state(states[1])


def _told(found: Judgement) -> str:
    return f"{found.finding}: {found.reason}"
