"""Proofs of F >= 0 on a box by subdivision, in ball arithmetic: every number holds the exact one.

A box on which the ball of F is positive is done; one whose middle has a negative ball refutes; any
other is halved. Where F touches zero that would not end: there strips are taken off beforehand, on
which F is shown to be nonnegative by its Taylor series with a rigorous remainder, or by exact
arithmetic.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from loraone_theory.claims.base import Certificate, Evidence
from loraone_theory.core.extras import extra


class _Deferred:
    """python-flint, imported with the first ball and not with the registry of claims."""

    def __getattr__(self, name: str) -> Any:
        with extra("certify"):
            return getattr(importlib.import_module("flint"), name)


flint: Any = _Deferred()
Ball = Any
Side = tuple[Fraction, Fraction]
BOXES = 200_000  # a proof that needs more is given up


class Strip(NamedTuple):
    """A part of the domain on which F >= 0 is shown apart.

    Args:
        axis: of the variable that it bounds.
        side: the rest of that variable's range, where the strip holds.
        holds: shows it.
    """

    axis: int
    side: Side
    holds: Callable[[], bool]


class Part(NamedTuple):
    """One inequality F >= 0, or F > 0 off the strips.

    Args:
        name: for the record.
        value: F of balls, one per variable.
        names: of the variables.
        domain: range of each variable; ends are exact.
        strips: parts of it that are shown apart.
    """

    name: str
    value: Callable[..., Ball]
    names: tuple[str, ...]
    domain: tuple[Side, ...]
    strips: tuple[Strip, ...] = ()


def ball(side: Side) -> Ball:
    """The ball that holds an interval of rational ends."""
    low, high = (flint.arb(exact(end)) for end in side)
    return low.union(high)


def exact(value: Fraction) -> Any:
    """The same rational number, of flint."""
    return flint.fmpq(value.numerator, value.denominator)


def span(low: str, high: str) -> Side:
    """The range of a variable, from texts such as "1/2"."""
    return Fraction(low), Fraction(high)


def decide(parts: Sequence[Part]) -> Evidence:
    """Prove all parts, or refute one at a point.

    Returns:
        Evidence with the certificate; its single lhs is 1 where something is not proved.
    """
    boxes = depth = 0
    undecided = ""
    for part in parts:
        found = _subdivide(part)
        boxes, depth = boxes + found.boxes, max(depth, found.depth)
        if found.counterexample:
            return _evidence(found._replace(boxes=boxes, depth=depth))
        if not found.proved:
            undecided = undecided or part.name
    return _evidence(Certificate(not undecided, "", undecided, boxes, depth))


def _evidence(found: Certificate) -> Evidence:
    numbers = {"boxes": found.boxes, "halvings of the smallest": found.depth}
    lhs = np.array([0.0 if found.proved else 1.0])
    return Evidence(lhs, 0.0, numbers=numbers, certificate=found)


def _subdivide(part: Part) -> Certificate:
    domain, provable = list(part.domain), True
    for strip in part.strips:
        if strip.holds():
            low, high = domain[strip.axis]
            domain[strip.axis] = max(low, strip.side[0]), min(high, strip.side[1])
        else:
            provable = False  # without the strip there is only a point to be found that refutes
    boxes = deepest = 0
    widths = [high - low for low, high in domain]
    if min(widths) < 0:  # the strips are all of it
        return Certificate(True, "", "", 0, 0)
    queue = deque([(tuple(domain), 0)])
    while queue and boxes < BOXES:
        box, depth = queue.popleft()
        boxes, deepest = boxes + 1, max(deepest, depth)
        if part.value(*map(ball, box)) > 0:
            continue
        middle = [(low + high) / 2 for low, high in box]
        value = part.value(*(flint.arb(exact(x)) for x in middle))
        if value < 0:
            at = ", ".join(f"{n} = {float(x):.6g}" for n, x in zip(part.names, middle, strict=True))
            return Certificate(
                False, f"{part.name} fails at {at}, by {float(-value):.3g}", "", boxes, deepest
            )
        # Halved across its longest side, measured by that of the domain; breadth first.
        axis = max(range(len(box)), key=lambda i: (box[i][1] - box[i][0]) / widths[i])
        for half in ((box[axis][0], middle[axis]), (middle[axis], box[axis][1])):
            queue.append(((*box[:axis], half, *box[axis + 1 :]), depth + 1))
    return Certificate(provable and not queue, "", "", boxes, deepest)


Series = Any
# x -> (P, R): the function πP(x) + R(x), of anything that has sin and cos.
Pair = Callable[[Any], tuple[Any, Any]]
ORDER = 9  # flint's series have ten terms


def nonnegative_from_zero(of: Pair, end: Fraction) -> bool:
    """Whether πP + R >= 0 on [0, end], by its Taylor series at 0.

    The coefficients below `ORDER` are exact rationals, the last one a ball over the whole interval,
    which holds Lagrange's remainder. The first n that vanish are divided out: what is left is shown
    to be positive.
    """
    P, R = of(flint.fmpq_series([0, 1], prec=ORDER))
    pairs = [(P[i], R[i]) for i in range(ORDER)]
    first = next((i for i, (p, r) in enumerate(pairs) if p != 0 or r != 0), ORDER)
    here = ball((Fraction(0), end))
    last = of(flint.arb_series([here, 1], prec=ORDER + 1))
    value = flint.arb.pi() * last[0][ORDER] + last[1][ORDER]
    for p, r in reversed(pairs[first:]):
        value = value * here + flint.arb.pi() * p + r
    return bool(value > 0)
