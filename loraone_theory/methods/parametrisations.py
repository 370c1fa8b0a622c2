"""How trainable tensors make the learned shift, and how its gradient comes back to them.

A problem knows one gradient only, with respect to the factors of the learned shift. Everything
else is the chain rule: s·AB, A R B with A and B frozen, P diag(λ) Q, or a full ΔW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, Params, checked
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.reduction import Axes

LEFT: Axes = ("input", None)
RIGHT: Axes = (None, "output")
BOTH: Axes = ("input", "output")
NEITHER: Axes = (None, None)


class Parametrisation(NamedTuple):
    """The map from trainable and frozen tensors to the learned shift.

    Args:
        name: for records and messages.
        shift: (trainable, frozen) -> Factors whose product is the learned shift.
        pullback: (trainable, frozen, gradients of the shift's factors) -> gradients of trainable.
        sides: (trainable, frozen) -> the pair whose column space and row space are compared with
            the gradient's: (A, B) for a pair of factors.
        trainable_axes: which space the rows and the columns of each trainable tensor live in.
        frozen_axes: the same for the frozen tensors.
        is_pair: True where the trainable tensors are the factors (A, B) themselves.
        turns: rows and columns of the shift may be rotated each on their own, which the exact
            reduction of the linear problem does.
    """

    name: str
    shift: Callable[[Params, Params], Factors]
    pullback: Callable[[Params, Params, Factors], Params]
    sides: Callable[[Params, Params], Factors]
    trainable_axes: tuple[Axes, ...]
    frozen_axes: tuple[Axes, ...] = ()
    is_pair: bool = False
    turns: bool = True


class Start(NamedTuple):
    """What an initialisation hands to the loop: W_f = W − offset (offset None: W itself)."""

    trainable: Params
    frozen: Params = ()
    offset: Factors | None = None

    def __repr__(self) -> str:
        parts = {"trainable": self.trainable, "frozen": self.frozen}
        shapes = (f"{name}={[tuple(M.shape) for M in p]}" for name, p in parts.items() if p)
        return f"Start({', '.join(shapes)}{'' if self.offset is None else ', with an offset'})"


def check_start(start: Any, form: Parametrisation, problem: Problem, rank: int, name: str) -> None:
    """Refuse what an initialisation of a user's made where it does not fit.

    Raises:
        TypeError, ValueError: no Start, or tensors of another number, dtype, device or shape, or
            an offset that is none of the problem's.
    """
    if not isinstance(start, Start):
        raise TypeError(
            f"initialisation {name!r} must return an lt.Start; got {type(start).__name__}"
        )
    parts = (
        ("trainable", start.trainable, form.trainable_axes),
        ("frozen", start.frozen, form.frozen_axes),
    )
    for what, tensors, axes in parts:
        if not isinstance(tensors, tuple):
            raise TypeError(
                f"initialisation {name!r} must return a tuple of {what} tensors; got "
                f"{type(tensors).__name__}; write lt.Start((A, B))"
            )
        if len(tensors) != len(axes):
            raise ValueError(
                f"initialisation {name!r} must return {len(axes)} {what} tensors for {form.name}; "
                f"got {len(tensors)}"
            )
        for i, (tensor, (row, column)) in enumerate(zip(tensors, axes, strict=True)):
            label = f"{what}[{i}] of initialisation {name!r}"
            found = validate.tensor(label, tensor)
            validate.same_kind(**{"the problem": problem.like, label: found})
            inner = rank if form.is_pair else None
            sizes = (problem.d if row else inner, problem.k if column else inner)
            validate.shapes_match(
                f"{label} must be (..., {', '.join('·' if n is None else str(n) for n in sizes)})",
                all(n in (None, m) for n, m in zip(sizes, found.shape[-2:], strict=True)),
                given=found.shape,
            )
    if start.offset is not None:
        label = f"the offset of initialisation {name!r}"
        checked(label, start.offset, d=problem.d, k=problem.k, like=problem.like)


def pair(scale: float = 1.0) -> Parametrisation:
    """W_eff = W_f + s·AB: ∇_A = s∇_{sA}, ∇_B as it comes."""
    if scale == 1.0:
        return Parametrisation(
            "AB",
            shift=lambda p, _: Factors(*p),
            pullback=lambda p, _, g: g,
            sides=lambda p, _: Factors(*p),
            trainable_axes=(LEFT, RIGHT),
            is_pair=True,
        )
    return Parametrisation(
        "sAB",
        shift=lambda p, _: Factors(scale * p[0], p[1]),
        pullback=lambda p, _, g: Factors(scale * g.A, g.B),
        sides=lambda p, _: Factors(*p),
        trainable_axes=(LEFT, RIGHT),
        is_pair=True,
    )


def full(scale: float = 1.0) -> Parametrisation:
    """W_eff = W + ΔW, held as Factors(ΔW, I); there is no scale in it."""
    return Parametrisation(
        "full",
        shift=lambda p, _: Factors(p[0], _identity(p[0])),
        pullback=lambda p, _, g: (g.A,),
        sides=lambda p, _: Factors(p[0], p[0]),
        trainable_axes=(BOTH,),
    )


def core(scale: float = 1.0) -> Parametrisation:
    """W_eff = W + s·A R B with A, B frozen: ∂R = s Aᵀ ∂(AR)."""
    return Parametrisation(
        "sARB",
        shift=lambda p, f: Factors(scale * (f[0] @ p[0]), f[1]),
        pullback=lambda p, f, g: (scale * (f[0].mT @ g.A),),
        sides=lambda p, f: Factors(f[0] @ p[0], p[0] @ f[1]),
        trainable_axes=(NEITHER,),
        frozen_axes=(LEFT, RIGHT),
    )


def triplets(scale: float = 1.0) -> Parametrisation:
    """W_eff = W + s·P diag(λ) Q: ∂P = s ∂(sPλ)diag(λ), ∂λ_i = s P_{·i}ᵀ∂(sPλ)_{·i}, ∂Q as it comes.

    λ is held as a row (1, r).
    """
    return Parametrisation(
        "sPλQ",
        shift=lambda p, _: Factors(scale * p[0] * p[1], p[2]),
        pullback=lambda p, _, g: (
            scale * g.A * p[1],
            scale * (p[0] * g.A).sum(-2, keepdim=True),
            g.B,
        ),
        sides=lambda p, _: Factors(p[0] * p[1], p[1].mT * p[2]),
        trainable_axes=(LEFT, NEITHER, RIGHT),
    )


def gram() -> Parametrisation:
    """W_eff = W + UUᵀ: ∂U = ½(∂A + ∂Bᵀ) at A = Bᵀ = U, which is R_sU: the gradient of L/2.

    The half is the convention of the symmetric model, L = ‖𝒜(UUᵀ − X*)‖²/4m.
    """
    return Parametrisation(
        "UUᵀ",
        shift=lambda p, _: Factors(p[0], p[0].mT),
        pullback=lambda p, _, g: ((g.A + g.B.mT) / 2,),
        sides=lambda p, _: Factors(p[0], p[0].mT),
        trainable_axes=(LEFT,),
        turns=False,
    )


def _identity(W: Tensor) -> Tensor:
    return torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)


# By the names that records of a method hold.
PARAMETRISATIONS: dict[str, Callable[[float], Parametrisation]] = {
    "pair": pair,
    "full": full,
    "core": core,
    "triplets": triplets,
}
