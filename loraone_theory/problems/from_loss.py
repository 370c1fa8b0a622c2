"""Any differentiable loss as a problem: another activation, a cross-entropy, somebody's data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.validate import Array
from loraone_theory.problems import rows
from loraone_theory.problems.autograd import Loss, LossProblem
from loraone_theory.problems.given import own_shift


def from_loss(
    loss: Loss,
    *,
    d: int,
    k: int,
    pretrained: Array | None = None,
    shift: Array | Factors | None = None,
    data: Any = None,
    batched: int = 0,
    held_out: Any = None,
    split: float = 0.0,
    split_seed: int = 0,
    risk: Loss | None = None,
    fresh: rows.Draw | None = None,
    spectral_gamma: float = 1.0,
    chunk: int | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> LossProblem:
    """A problem from any differentiable loss(W), or loss(W, *data), of a weight W (d, k).

    The function is written for one W and one data set and returns a scalar tensor, a mean over
    the rows of the data where there are any. Instances and runs are batched, and gradients taken,
    by torch.func, so it must be pure: no in-place change of its arguments, no `.item()`.

    Args:
        loss: the function.
        d: rows of W.
        k: columns of W.
        pretrained: W (..., d, k). Without it W is zero, and methods that are made from W are
            refused.
        shift: Δ (..., d, k), dense or Factors, where it is known; without it records and
            predictions that compare with it are not defined.
        data: one array or a sequence of arrays, each with the N rows first. Floating-point ones
            have the problem's dtype; integers (class labels) stay what they are.
        batched: how many leading dimensions of every array count instances, before the rows.
        held_out: the same arrays of rows to measure `test_loss` on.
        split: the fraction of the rows that is held out instead, 0 <= split < 1.
        split_seed: what those rows are drawn with.
        risk: the expected loss as a function of W, where it is known.
        fresh: (numpy generator, size) -> fresh rows of every array, for sampling="fresh".
        spectral_gamma: γ of Spectral-init on this problem.
        chunk: how many runs are differentiated at once, to save memory.
        dtype: float32 or float64, where no array says it; float64 by default.
        device: where it is made, where no array says it.

    Returns:
        A LossProblem; the arrays are copied.

    Raises:
        TypeError: a loss that is not a function or does not return a tensor, or another dtype.
        ValueError: shapes that do not fit, a loss that is not a finite scalar at W.

    >>> X = torch.eye(3, dtype=torch.float64)
    >>> def squares(W, X, Y):
    ...     return (torch.tanh(X @ W) - Y).square().sum(-1).mean()
    >>> problem = from_loss(squares, d=3, k=2, data=(X, X[:, :2]))
    >>> round(float(problem.one_step_gradient()[0, 0]), 12) == round(2 / 3, 12)
    True
    """
    validate.function("loss", loss)
    for name, given in (("risk", risk), ("fresh", fresh)):
        if given is not None:
            validate.function(name, given)
    validate.integer("d", d, least=1)
    validate.integer("k", k, least=1)
    lead = validate.integer("batched", batched, least=0)
    if chunk is not None:
        validate.integer("chunk", chunk, least=1)
    arrays, test = rows.own("data", data, lead), rows.own("held_out", held_out, lead)
    weight = None if pretrained is None else validate.tensor("pretrained", pretrained, owned=True)
    delta = None if shift is None else own_shift(shift)
    floating = {f"data[{i}]": array for i, array in enumerate(arrays) if array.is_floating_point()}
    floating |= {} if weight is None else {"pretrained": weight}
    floating |= {} if delta is None else {"shift": delta.A}
    like = _like(floating, dtype, device)
    for name, M in {"pretrained": weight, "shift": delta}.items():
        if M is not None:
            validate.shapes_match(
                f"{name} must be (..., {d}, {k})", M.shape[-2:] == (d, k), **{name: M.shape}
            )
    instances = {"data": arrays, "held_out": test}
    for name, several in instances.items():
        if several and weight is not None:
            batch = several[0].shape[:lead]
            validate.broadcastable(name, batch, "pretrained", weight.shape[:-2])
    if test and len(test) != len(arrays):
        raise ValueError(
            f"held_out must hold the same arrays as data; got {len(test)} with {len(arrays)} in "
            "data; give as many, in the same order"
        )
    train, test = rows.split_off(arrays, test, lead, split, split_seed)
    problem = LossProblem(
        function=loss,
        start=like.new_zeros(d, k) if weight is None else weight,
        data=train,
        batched=lead,
        held_out=test,
        pretrained=weight,
        shift=delta,
        spectral_gamma=validate.number("spectral_gamma", spectral_gamma, positive=True),
        expected=risk,
        draw=fresh,
        chunk=chunk,
    )
    _check_value(problem)
    return problem


def _like(
    floating: dict[str, Tensor], dtype: torch.dtype | str | None, device: torch.device | str | None
) -> Tensor:
    """An empty tensor of the dtype and device that all given arrays share."""
    if not floating:
        where = validate.device("cpu" if device is None else device)
        kind = validate.dtype("float64" if dtype is None else dtype)
        return torch.empty(0, dtype=kind, device=where)
    validate.same_kind(**floating)
    name, first = next(iter(floating.items()))
    if dtype is not None and validate.dtype(dtype) != first.dtype:
        raise TypeError(
            f"dtype must be that of the arrays; got dtype={dtype} with {name} of {first.dtype}; "
            "leave dtype out or convert the arrays"
        )
    if device is not None and validate.device(device) != first.device:
        raise ValueError(
            f"device must be that of the arrays; got device={device} with {name} on "
            f"{first.device}; leave device out or move the arrays"
        )
    return first.new_empty(0)


def _check_value(problem: LossProblem) -> None:
    """The loss is a finite scalar tensor at W, and torch.func can batch and differentiate it."""
    d, k = problem.d, problem.k
    kept = tuple(array[(0,) * problem.batched] for array in problem.data)
    kept = (problem.start[(0,) * (problem.start.ndim - 2)], *kept)
    W, *first = (array.clone() for array in kept)
    try:
        value: Any = problem.function(W, *first)
        again: Any = problem.function(W, *first)
    except (RuntimeError, TypeError) as error:
        shapes = ", ".join(str(tuple(M.shape)) for M in (W, *first))
        raise ValueError(
            f"loss(W, *data) must be defined at tensors of shapes {shapes}; it says: {error}"
        ) from error
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a tensor; got {type(value).__name__}")
    if value.shape != () or value.dtype != problem.like.dtype:
        raise ValueError(
            f"loss must return one {problem.like.dtype} number, a tensor of shape (); got "
            f"{value.dtype} of shape {tuple(value.shape)}; take the mean over rows, and keep the "
            "dtype of W"
        )
    names = ("W", *(f"data[{i}]" for i in range(len(first))))
    for name, before, after in zip(names, kept, (W, *first), strict=True):
        if not before.equal(after):
            raise ValueError(
                f"loss must leave its arguments as they are; it changed {name}; work on a copy, "
                "X * c in place of X.mul_(c)"
            )
    digits = linalg.eps(value) ** 0.5  # a card may sum in another order
    if not torch.isclose(value, again, rtol=digits, atol=0, equal_nan=True):
        raise ValueError(
            f"loss must be a function of W and the data alone; got {float(value)} and then "
            f"{float(again)} at the same W; draw and count outside of it"
        )
    try:
        # Somewhere else as well: at W itself the gradient may be zero.
        away = torch.linspace(-1, 1, d * k).to(W).reshape(d, k)
        here = problem.start.expand(*problem.batch_shape, d, k)
        pair = torch.stack([here, here + away])
        slope = problem.over_batch(torch.func.grad(problem.function), pair, problem.data)
    except RuntimeError as error:
        raise ValueError(
            "loss must be a pure function that torch.func can batch and differentiate (no "
            f".item(), no branch on values, no change of its arguments); torch says: {error}"
        ) from error
    if not bool((slope != 0).any()):
        raise ValueError(
            "loss must depend on W; got a gradient of zero at W and beside it; do not detach W, "
            "and do not go through integers"
        )
    slope = slope[0]
    if not (bool(torch.isfinite(value)) and bool(torch.isfinite(slope).all())):
        raise ValueError(
            f"loss and its gradient must be finite at W; got a loss of {float(value)} and "
            f"{int((~torch.isfinite(slope)).sum())} non-finite entries of its gradient"
        )
