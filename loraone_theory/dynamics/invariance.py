"""Whether a record has the value that it has in rotated coordinates, on a generic state."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator, haar_frame, normal
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.view import View, reference
from loraone_theory.methods import Method
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import Axes, Reduction
from loraone_theory.problems.linear.sampling import sample_linear

SEED = 20
LEAST = 6
# Values differ by rounding, which a subspace's gap, a quotient or a difference may enlarge.
SLACK = 1e6
# Numbers of the streams that the offset's factors are drawn from.
LEFT, RIGHT = 100, 101


def check(record: Record, method: Method, rank: int) -> None:
    """Measure on a random state and on the same state in rotated coordinates.

    The state has Gaussian entries throughout: at t = 0, where AB = 0, every norm agrees.

    Args:
        record: that claims to be invariant.
        method: whose tensors it will see, at its rank.
        rank: r.

    Raises:
        ValueError: the values differ, or the record cannot be measured at another size.
    """
    d, k = rank + LEAST, rank + LEAST + 1
    problem = sample_linear(d=d, k=k, true_rank=min(2, rank), samples=4 * d, seeds=[SEED])
    left, right = (_frame(n, name, problem.like) for n, name in ((d, "left"), (k, "right")))
    way = Reduction(problem, None, left, right)
    form = method.parametrisation
    start = method.init(problem, rank, (SEED,))
    offset = None if start.offset is None else Factors(*map(_noise, (LEFT, RIGHT), start.offset))
    lowered_offset = None if offset is None else way.lower(offset)
    turned = LinearProblem(
        Dense(left.mT @ problem.covariance.matrix @ left),  # type: ignore[attr-defined]
        way.lower(problem.shift),
        offset=lowered_offset,
        samples=problem.samples,
    )
    if offset is not None:
        problem = problem.with_offset(offset)
    tensors = [_noise(i, t) for i, t in enumerate((*start.trainable, *start.frozen))]
    axes: tuple[Axes, ...] = (*form.trainable_axes, *form.frozen_axes)
    lowered = [way.lower_tensor(t, where) for t, where in zip(tensors, axes, strict=True)]
    count = len(start.trainable)
    values = []
    for where, parts, away in ((problem, tensors, offset), (turned, lowered, lowered_offset)):
        stacked = tuple(t[None] for t in parts[:count])
        shift = form.shift(stacked, tuple(parts[count:]))
        size = min(shift.rank + (0 if away is None else away.rank), d, k)
        view = View(
            where, form, stacked, tuple(parts[count:]), away, size, partial(reference, where)
        )
        values.append(_measured(record, view))
    here, there = (value.double() for value in values)
    allowed = SLACK * linalg.eps(problem.like) * here.abs().clamp_min(1.0)
    if here.shape != there.shape or not bool(((here - there).abs() <= allowed).all()):
        raise ValueError(
            f"record {record.name!r} is not rotation-invariant: on a random state it is "
            f"{_shown(here)}, and {_shown(there)} after a rotation of both spaces; leave "
            "invariant=True out, then it is measured in the original coordinates"
        )


def _measured(record: Record, view: View) -> Tensor:
    try:
        return record.measure(view)
    except Exception as error:
        problem = view.problem
        raise ValueError(
            f"record {record.name!r} claims to be invariant, which is checked on a small problem "
            f"(d={problem.d}, k={problem.k}), and it cannot be measured there: "
            f"{str(error).splitlines()[0]}; a record that holds tensors of its own is not "
            "invariant: leave invariant=True out"
        ) from error


def _shown(value: Tensor) -> str:
    return ", ".join(f"{x:.6g}" for x in value.flatten()[:3].tolist())


def _frame(n: int, name: str, like: Tensor) -> Tensor:
    return torch.from_numpy(haar_frame(generator(SEED, f"rotation {name}"), n, n)).to(like)


def _noise(i: int, like: Tensor) -> Tensor:
    shape = (1, *like.shape[-2:])
    return torch.from_numpy(normal(generator(SEED, f"state {i}"), *shape)).to(like)
