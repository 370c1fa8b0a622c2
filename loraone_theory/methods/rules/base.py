"""What an update rule is: a pair of pure functions, made by a factory that takes the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.arrays import broadcast
from loraone_theory.core.eigen import eigvalsh
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import Inverse
from loraone_theory.core.moments import Betas as Betas
from loraone_theory.core.moments import Moments as Moments
from loraone_theory.core.moments import decay as decay
from loraone_theory.core.moments import descend as descend

State = Any


class Descent(NamedTuple):
    """A rule for pairs whose step is linear in the gradients: A ← A − η∇_A R, B ← B − ρη L∇_B.

    On the linear problem such a step is made in place, without temporaries.

    Args:
        learning_rate: η.
        ratio: ρ.
        inverses: (A, B), state -> symmetric L and R (..., r, r), new state; None for identities.
    """

    learning_rate: Scalar
    ratio: float = 1.0
    inverses: Callable[[Params, State], tuple[Tensor, Tensor, State]] | None = None


class Local(NamedTuple):
    """How a rule acts near a solution, for local rates.

    Args:
        weights: of the gradients there. "none": as they come, so that λAᵀA − BBᵀ stays as the flow
            leaves it; "preconditioned": (BBᵀ + λI)⁻¹ and (AᵀA + λI)⁻¹; "full": the step's effect on
            W is that of full fine-tuning.
        momentum: β.
        ratio: by how much B's step is larger than A's.
    """

    weights: Literal["none", "preconditioned", "full"] = "none"
    momentum: float = 0.0
    ratio: float = 1.0


UNSTATED = "no rate: the rule does not state how it acts near a solution (Rule.local)"
MOVING = "no rate: the damping moves with the factors"
DECAY = "no rate: weight decay moves the solution away from the fit"
ADAM = "no rate: steps of Adam's kind do not shrink with the gradient"
SIGNS = "no rate: orthogonalised steps do not shrink with the gradient"


class Rule(NamedTuple):
    """An update rule, and the facts about it that others go by.

    Args:
        init: trainable tensors -> state.
        update: (trainable, gradients, state) -> (new trainable, new state). Nothing is mutated.
        equivariant: the trajectory rotates with the problem (derivations 3.1b), also into more or
            fewer dimensions, so that the exact reduction applies. Entrywise rules such as Adam are
            not equivariant, nor are those that go by the number of rows or columns.
        dropped: state -> per run, the number of steps in which a pseudo-inverse dropped
            directions, and the last such step; None for rules that invert nothing.
        descent: the same step of a pair (A, B) in the form that can be made in place, if it has it.
        pair: it needs a pair (A, B).
        inverts: it has inverses that a damping goes into.
        damping: the one to take where none is given and it has to have one.
        local: how it acts near a solution, None where no local rate exists or none is known.
        no_rate: why there is none.
        advance: (trainable, gradients, state) -> (new trainable, new state) for rules that ask for
            gradients elsewhere than at time t: `gradients` is then the function trainable ->
            gradients, and `update` is not called.
        flow: its steps are pieces of a flow, so that only learning rate × steps matters.
        ends_with: rank -> the rank that it ends with, for rules that prune; None for the others.
        replays: a step is the same work whatever the values are: nothing is read back on the way,
            and a number of the state enters as a number and decides nothing. A device may then
            record the step and replay it, with tensors in place of those numbers.
        in_place: `update` to rounding, but trainable tensors and state may be written over.
        partly: which tensors move, not all of them -> the rule where the others stay, of the same
            state; for rules whose step of one counts on that of another.
    """

    init: Callable[[Params], State]
    update: Callable[[Params, Params, State], tuple[Params, State]]
    equivariant: bool = False
    dropped: Callable[[State], tuple[Tensor, Tensor]] | None = None
    descent: Descent | None = None
    pair: bool = False
    inverts: bool = False
    damping: float = 0.0
    local: Local | None = None
    no_rate: str = UNSTATED
    flow: bool = False
    ends_with: Callable[[int], int] | None = None
    advance: Callable[[Params, Callable[[Params], Params], State], tuple[Params, State]] | None = (
        None
    )
    replays: bool = False
    in_place: Callable[[Params, Params, State], tuple[Params, State]] | None = None
    partly: Callable[[tuple[bool, ...]], Rule] | None = None

    def __repr__(self) -> str:
        facts = [name for name in ("equivariant", "pair", "inverts", "flow") if getattr(self, name)]
        return f"Rule({', '.join(facts)})"


def no_update(rule: str) -> Callable[[Params, Params, State], tuple[Params, State]]:
    """The `update` of a rule that only has `advance`: it says so."""

    def update(params: Params, gradients: Params, state: State) -> tuple[Params, State]:
        raise TypeError(
            f"rule {rule!r} asks for gradients at points of its own, so it is run by "
            "Rule.advance, as simulate does; here use a rule that takes one gradient a step"
        )

    return update


def checked(
    rule: str,
    name: str,
    given: Any,
    *,
    least: float = 0.0,
    positive: bool = False,
    below: float = math.inf,
    remedy: str = "",
) -> float:
    """A hyper-parameter of a rule with least <= value (> 0 where positive) and value < below.

    Raises:
        TypeError, ValueError: it is none.
    """
    what = f"{name} of rule {rule!r}"
    value = validate.real(what, given)
    if math.isfinite(value) and value >= least and value < below and (value > 0 or not positive):
        return value
    lower = f"0 < {name}" if positive else f"{least:g} <= {name}"
    upper = "" if math.isinf(below) else f" < {below:g}"
    tail = f"; {remedy}" if remedy else ""
    raise ValueError(f"{what} must satisfy {lower}{upper}; got {name}={value:g}{tail}")


def check_rates(rule: str, learning_rate: Scalar, damping: Scalar = 0.0) -> None:
    """Refuse a learning rate or a damping below 0; tensors of them have been looked at before."""
    for name, given in (("learning_rate", learning_rate), ("damping", damping)):
        if not isinstance(given, Tensor):
            checked(rule, name, given)


def check_betas(rule: str, betas: Any) -> None:
    """Refuse betas that are not two numbers of [0, 1)."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(
            f"betas of rule {rule!r} must be two numbers; got {betas!r}; (0.9, 0.999) is usual"
        )
    for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
        checked(rule, name, beta, below=1.0, remedy="(0.9, 0.999) is usual")


def check_adam(rule: str, betas: Any, eps: Any, weight_decay: Any) -> None:
    """Refuse betas outside [0, 1), eps <= 0 and a negative weight decay."""
    check_betas(rule, betas)
    checked(rule, "eps", eps, positive=True, remedy="1e-8 is usual")
    checked(rule, "weight_decay", weight_decay)


def check_ratio(rule: str, ratio: Any) -> None:
    """Refuse a ratio of the steps of B and A below 1."""
    checked(rule, "ratio", ratio, least=1.0, remedy="1 is plain LoRA, 16 is usual")


def with_l2(gradients: Params, params: Params, l2: float) -> Params:
    """∇ + wP for every tensor: the gradients of L + ½w Σ‖P‖_F²."""
    if l2 == 0:
        return gradients
    return tuple(G.add(P, alpha=l2) for G, P in zip(gradients, params, strict=True))


def relative_damping(M: Tensor, damping: Scalar, relative: float) -> Scalar:
    """λ + c·λ_min(M) for a Gram matrix M (..., r, r) and c = `relative`.

    λ_min counts as zero where it is within the rounding of M, so that a pseudo-inverse is taken.
    """
    if relative == 0:
        return damping
    values = eigvalsh(torch.where(torch.isfinite(M), M, 0.0))
    least, largest = values[..., :1, None], values[..., -1:, None]
    known = least > M.shape[-1] * torch.finfo(M.dtype).eps * largest
    return damping + relative * torch.where(known, least, 0.0)


class Drops(NamedTuple):
    """Bookkeeping of pseudo-inverses: steps so far, steps with drops, the last of those."""

    step: float | Tensor
    steps: Tensor  # (...), int64
    last: Tensor  # (...), int64

    @classmethod
    def none(cls, params: Params) -> Drops:
        """Before the first step."""
        batch = broadcast(*(t.shape[:-2] for t in params))
        zero = torch.zeros(batch, dtype=torch.int64, device=params[0].device)
        return cls(0, zero, zero)

    def after(self, left: Inverse, right: Inverse) -> Drops:
        """After a step that used these two r×r inverses."""
        drops = torch.minimum(left.kept, right.kept) < left.matrix.shape[-1]
        step = self.step + 1
        last = torch.where(drops, step, self.last).to(self.last.dtype)
        return Drops(step, self.steps + drops, last)


def in_turn(
    name: str,
    advance: Callable[[Params, Callable[[Params], Params], Drops], tuple[Params, Drops]],
    replays: bool = False,
) -> Rule:
    """A rule of pairs that steps A, then B from where A has gone, each with an inverse."""
    return Rule(
        Drops.none,
        no_update(name),
        equivariant=True,
        dropped=lambda state: (state.steps, state.last),
        pair=True,
        inverts=True,
        no_rate="no rate: those of alternating steps are not predicted",
        advance=advance,
        replays=replays,
    )
