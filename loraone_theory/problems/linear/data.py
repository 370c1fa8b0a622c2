"""A linear problem's fields from data that a caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.validate import Array
from loraone_theory.problems import rows
from loraone_theory.problems.given import second_moment, shift_and_pretrained
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.noise import project


class Given(NamedTuple):
    """Checked data: X, or X and Y − XW; Δ, of inner dimension 0 where it is not known; W."""

    arrays: rows.Arrays
    shift: Factors
    pretrained: Tensor | None


def check(
    X: Array, shift: Array | Factors | None, labels: Array | None, pretrained: Array | None
) -> Given:
    """Data that fit each other.

    Raises:
        TypeError, ValueError: what `LinearProblem.from_data` says.
    """
    inputs = validate.tensor("X", X)
    if labels is None:
        if shift is None:
            raise ValueError(
                "a problem needs what it is to learn: pass shift=Δ, labels=Y, or both; got neither"
            )
        delta, weight = shift_and_pretrained(shift, pretrained)
        return Given((inputs,), delta, weight)
    Y = validate.tensor("labels", labels)
    validate.same_kind(X=inputs, labels=Y)
    validate.shapes_match(
        "labels must hold one row for each row of X, with the same batch dimensions",
        Y.shape[:-1] == inputs.shape[:-1],
        labels=Y.shape,
        X=inputs.shape,
    )
    d, k = inputs.shape[-1], Y.shape[-1]
    if shift is not None:
        delta, weight = shift_and_pretrained(shift, pretrained)
    else:
        delta = Factors(inputs.new_zeros(d, 0), inputs.new_zeros(0, k))
        weight = None
        if pretrained is not None:
            weight = validate.tensor("pretrained", pretrained, owned=True)
    for name, M in (("shift", delta), ("pretrained", weight)):
        if M is not None:
            validate.shapes_match(
                f"{name} must be d x k, as wide as X and as labels",
                M.shape[-2:] == (d, k),
                **{name: M.shape, "X": inputs.shape, "labels": Y.shape},
            )
    return Given((inputs, Y if weight is None else Y - inputs @ weight), delta, weight)


def own_test(held_out: Any, given: Given) -> rows.Arrays:
    """Held-out rows as the arrays of `given`.

    Raises:
        ValueError: inputs without labels where there are some, or the reverse.
    """
    if held_out is None:
        return ()
    if len(given.arrays) == 1:
        return (validate.tensor("held_out", held_out, owned=True),)
    if not (isinstance(held_out, (tuple, list)) and len(held_out) == 2):
        raise ValueError(
            f"held_out must be a pair (X, Y) where labels are given; got {type(held_out).__name__}"
        )
    X, Y = (validate.tensor(f"held_out[{i}]", part, owned=True) for i, part in enumerate(held_out))
    return X, Y if given.pretrained is None else Y - X @ given.pretrained


def of_rows(name: str, arrays: Sequence[Tensor], given: Given, keep: bool) -> dict[str, Any]:
    """The fields of the problem of these rows."""
    X, shift = arrays[0], given.shift
    validate.same_kind(**{name: X, "shift": shift.A})
    validate.shapes_match(
        f"shift must have as many rows as {name} has columns (d)",
        shift.shape[-2] == X.shape[-1],
        **{name: X.shape, "shift": shift.shape},
    )
    validate.broadcastable(name, X.shape[:-2], "shift", shift.shape[:-2])
    matrix = second_moment(name, X)
    fields: dict[str, Any] = {
        "covariance": Dense(matrix),
        "shift": shift,
        "pretrained": given.pretrained,
        "samples": X.shape[-2],
        "inputs": X.detach().clone() if keep else None,
    }
    if len(arrays) == 1:
        return fields
    Z = arrays[1] - (X @ shift.A) @ shift.B
    covariance, noise, constant = project(X, matrix, Z)
    more = {"covariance": covariance, "noise": noise, "constant": constant}
    return fields | more | {"row_noise": Z if keep else None}
