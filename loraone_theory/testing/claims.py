"""What the judge relies on in a claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding, Kind
from loraone_theory.claims.judge import Judgement, judge
from loraone_theory.claims.registry import Registry
from loraone_theory.core import validate
from loraone_theory.testing.base import require

LEVEL = 0.99
FEW = 4  # draws that are looked for among all
DOUBLED = 4  # times that the draws of a mutant are doubled where they decide nothing


def check_claim(claim: Claim, *, trials: int | None = None, seed: int = 0) -> None:
    """Hold a claim to what a verdict relies on; nothing is returned.

    It says in words what it claims and how it is tested; its draws are a function of the master
    seed alone, whatever the global random states; its evidence is whole (one entry per draw, plain
    numbers for the report, a promised probability where it is one); more draws go on where fewer
    stopped, which the judge relies on where it looks at a probability or a mean more than once; a
    smoke run does not contradict the expected verdict; and its mutant, measured in the same way, is
    found out.

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
    if claim.kind in ("probability", "value"):
        _goes_on(claim, draws, evidence)
    found = judge(evidence, claim.kind, LEVEL)
    allowed = {claim.expected}
    if claim.kind in ("probability", "value"):  # which a few draws need not decide
        allowed.add(Finding.INCONCLUSIVE)
    require(
        found.finding in allowed,
        f"claim {claim.id!r} must come out {claim.expected}; got {_told(found)}",
    )
    broken = judge(_measured(claim, "mutant", draws), claim.kind, LEVEL)
    for doubled in range(1, DOUBLED + 1):
        if broken.finding is not Finding.INCONCLUSIVE:
            break
        more = Draws(draws.trials << doubled, seed, smoke=True)
        broken = judge(claim.mutant(more), claim.kind, LEVEL)
    require(
        broken.finding is Finding.VIOLATED,
        f"the mutant of claim {claim.id!r} ({claim.mutant_statement}) must come out VIOLATED, or "
        f"the check cannot fail; got {_told(broken)}",
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
    require(claim.kind in get_args(Kind), f"the kind of claim {claim.id!r} must be one of them")
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
    lhs = np.asarray(evidence.lhs)
    require(
        lhs.ndim == 1 and lhs.size > 0 and lhs.dtype.kind in "fiub",
        f"{who} must have lhs of shape (n,), one number per draw; got {lhs.shape}, {lhs.dtype}",
    )
    for part in ("rhs", "inside", "tolerance"):
        shape = np.shape(getattr(evidence, part))
        require(shape in ((), lhs.shape), f"{who}: {part} must be one or {lhs.shape}; got {shape}")
    if evidence.setting is not None:
        shape = np.shape(evidence.setting)
        require(shape == lhs.shape, f"{who}: setting must be {lhs.shape}; got {shape}")
    if claim.kind == "probability":
        promised = evidence.probability
        require(
            promised is not None and 0 < promised < 1,
            f"{who} must state the promised probability, between 0 and 1; got {promised!r}",
        )
    for key, value in evidence.numbers.items():
        require(
            isinstance(value, (bool, int, float, str, np.generic)),
            f"the numbers of {who} must be plain; got {type(value).__name__} for {key!r}",
        )
    again = _with_global_seed(measure, draws, 2)
    same = all(
        np.array_equal(np.asarray(getattr(evidence, part)), np.asarray(getattr(again, part)), True)
        for part in ("lhs", "rhs", "inside", "tolerance")
    )
    require(same, f"{who} must draw from the master seed alone: twice the same gave other numbers")
    return evidence


def _goes_on(claim: Claim, draws: Draws, evidence: Evidence) -> None:
    """What fewer draws give is among what all of them give, up to rounding."""
    few = replace(draws, trials=max(1, min(FEW, draws.trials // 2)), handed={})
    fewer = np.asarray(claim.measure(few).lhs, dtype=np.float64)
    whole = np.asarray(evidence.lhs, dtype=np.float64)
    fewer, whole = fewer[np.isfinite(fewer)], whole[np.isfinite(whole)]
    sizes = [np.abs(each).max(initial=0.0) for each in (whole, evidence.rhs, evidence.tolerance)]
    allowed = np.finfo(np.float64).eps ** 0.5 * max(sizes)
    missed = [x for x in fewer if not (np.abs(whole - x) <= allowed).any()]
    require(
        not missed,
        f"more draws of claim {claim.id!r} must go on where fewer stopped: {len(missed)} of "
        f"{len(fewer)} values of {few.trials} draws are not among those of {draws.trials}; let a "
        "draw hang on its own seed alone (Draws.seeds, Draws.normals)",
    )


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
