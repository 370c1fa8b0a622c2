"""One input at growing width: what the packs on learning rates and width share.

Steps are the library's rules, called one by one: what is measured is what single steps do to the
features and the output, at a learning rate for each draw where it is searched for, and `simulate`
takes one for all draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from loraone_theory.claims.base import Draws
from loraone_theory.claims.population import gaussian
from loraone_theory.core.factors import Factors, Scalar
from loraone_theory.methods.rules.adamw import adamw
from loraone_theory.methods.rules.lora_plus import lora_plus

WIDTHS, RANK = (64, 256, 1024, 4096), 4
SMALLEST = 1e-300  # Adam's ε: without means its step is the sign of the gradient


def sizes(draws: Draws) -> tuple[int, ...]:
    """Widths: all of them, or the three smallest."""
    return WIDTHS[:3] if draws.smoke else WIDTHS


def start(
    n: int, seeds: Sequence[int], *, zero: Literal["A", "B"]
) -> tuple[Factors, Tensor, Tensor]:
    """A₀ ~ N(0, 1/n) or B₀ ~ N(0, 1/r), the other one zero; x (s, n, 1) and y (s, 1, n) N(0, 1)."""
    A, B = gaussian(n, RANK, seeds, f"A {n}"), gaussian(RANK, n, seeds, f"B {n}")
    pair = Factors(A / n**0.5, 0 * B) if zero == "B" else Factors(0 * A, B / RANK**0.5)
    return pair, gaussian(n, 1, seeds, f"x {n}"), gaussian(n, 1, seeds, f"y {n}").mT


def features(pair: Factors, x: Tensor) -> Tensor:
    """xᵀA (s, 1, r)."""
    return x.mT @ pair.A


def output(pair: Factors, x: Tensor) -> Tensor:
    """xᵀAB (s, 1, n)."""
    return features(pair, x) @ pair.B


def step(
    pair: Factors, x: Tensor, y: Tensor, rate: Scalar, ratio: float = 1.0, *, signs: bool = True
) -> Factors:
    """One step on ½‖xᵀAB − y‖², by signs or by the gradient; B's is `ratio` times as long."""
    miss = output(pair, x) - y
    gradients = x @ (miss @ pair.B.mT), features(pair, x).mT @ miss
    if signs:
        rule = adamw(rate, betas=(0.0, 0.0), eps=SMALLEST, ratio=ratio)
    else:
        rule = lora_plus(rate, ratio=ratio)
    return Factors(*rule.update(tuple(pair), gradients, rule.init(tuple(pair)))[0])
