"""Whether records and rules are the same in rotated coordinates of fewer dimensions.

A reduction relies on that for what states it; looked at on a generic state.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors, Params
from loraone_theory.core.randomness import generator, haar_frame, normal
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.view import View, reference
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Parametrisation, Start
from loraone_theory.problems.linear.covariance import Dense
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import Axes, Reduction
from loraone_theory.problems.linear.sampling import sample_linear

SEED = 20
# Dimensions of the small problem beyond the rank, which E takes all of; those of the larger one
# beyond the small one's.
LEAST, MORE = 2, 9
# Steps of a rule.
STEPS, RATE, DAMPING = 3, 1e-2, 0.1
# Values differ by rounding, which a subspace's gap, a quotient or a difference may enlarge.
SLACK = 1e6
# Numbers of the streams that the offset's factors are drawn from.
LEFT, RIGHT = 100, 101


def check(record: Record, method: Method, rank: int) -> None:
    """Measure on a random state, and on the same state in rotated coordinates of fewer dimensions.

    That is what a reduction (`problems.linear.reduction`) makes of a problem. The state has
    Gaussian entries throughout: at t = 0, where AB = 0, every norm agrees.

    Args:
        record: that claims to be invariant.
        method: whose tensors it will see, at its rank.
        rank: r.

    Raises:
        ValueError: the values differ, or the record cannot be measured at another size.
    """
    low, high, way = _spaces(rank)
    form = method.parametrisation
    start = method.init(low, rank, (SEED,))
    offset = None if start.offset is None else Factors(*map(_noise, (LEFT, RIGHT), start.offset))
    lifted_offset = None if offset is None else way.lift(offset)
    (tensors, lifted), count = _tensors(start, form, way), len(start.trainable)
    shift = form.shift(tuple(tensors[:count]), tuple(tensors[count:]))
    size = min(shift.rank + (0 if offset is None else offset.rank), high.d, high.k)
    values = []
    for problem, parts, away in ((high, lifted, lifted_offset), (low, tensors, offset)):
        where = problem if away is None else problem.with_offset(away)
        stacked = tuple(t[None] for t in parts[:count])
        view = View(
            where, form, stacked, tuple(parts[count:]), away, size, partial(reference, where)
        )
        values.append(_measured(record, view))
    here, there = (value.double() for value in values)
    allowed = SLACK * linalg.eps(low.like) * here.abs().clamp_min(1.0)
    if here.shape != there.shape or not bool(((here - there).abs() <= allowed).all()):
        raise ValueError(
            f"record {record.name!r} is not rotation-invariant: on a random state it is "
            f"{_shown(here)}, and {_shown(there)} after a rotation of both spaces into the fewer "
            "dimensions that hold it; leave invariant=True out, then it is measured in the "
            "original coordinates"
        )


def check_rule(method: Method, rank: int) -> None:
    """Let the rule go its way from a random state, and in rotated coordinates of fewer dimensions.

    Args:
        method: whose rule states equivariant=True.
        rank: r.

    Raises:
        ValueError: the ways differ.
    """
    low, high, way = _spaces(rank)
    form = method.parametrisation
    start = method.init(low, rank, (SEED,))
    (tensors, lifted), count = _tensors(start, form, way), len(start.trainable)
    ends = [
        _path(method, problem, tuple(parts[:count]), tuple(parts[count:]))
        for problem, parts in ((low, tensors), (high, lifted))
    ]
    for found, wanted, where in zip(*ends, form.trainable_axes, strict=True):
        expected = way.lift_tensor(found, where)
        off = float(torch.linalg.matrix_norm(wanted - expected).max())
        if not off <= SLACK * linalg.eps(low.like) * float(torch.linalg.matrix_norm(wanted).max()):
            raise ValueError(
                f"rule {method.train.name!r} states equivariant=True, and its path does not turn "
                f"with the problem into the fewer dimensions that hold it: after {STEPS} steps it "
                f"is {off:.1e} away (does it look at single entries, or at the number of rows or "
                "columns?); leave equivariant at False, or give reduce='never'"
            )


def _tensors(
    start: Start, form: Parametrisation, way: Reduction
) -> tuple[list[Tensor], list[Tensor]]:
    """Gaussian tensors of a start's shapes, trainable and frozen, and the same in `high`."""
    tensors = [_noise(i, t) for i, t in enumerate((*start.trainable, *start.frozen))]
    axes: tuple[Axes, ...] = (*form.trainable_axes, *form.frozen_axes)
    return tensors, [way.lift_tensor(t, where) for t, where in zip(tensors, axes, strict=True)]


def _path(method: Method, problem: LinearProblem, params: Params, frozen: Params) -> Params:
    """The trainable tensors after some steps."""
    form = method.parametrisation
    rule = method.rule(RATE, DAMPING if method.facts.inverts else 0.0)

    def gradients(at: Params) -> Params:
        return tuple(form.pullback(at, frozen, problem.gradients(form.shift(at, frozen))))

    state = rule.init(params)
    for _ in range(STEPS):
        if rule.advance is not None:
            params, state = rule.advance(params, gradients, state)
        else:
            params, state = rule.update(params, gradients(params), state)
    return params


def _spaces(rank: int) -> tuple[LinearProblem, LinearProblem, Reduction]:
    """A small problem, the same within more dimensions, and the way from the one to the other."""
    d, k = rank + LEAST, rank + LEAST + 1
    low = sample_linear(d=d, k=k, true_rank=min(2, rank), samples=4 * d, seeds=[SEED])
    left = _frame(d + MORE, d, "left", low.like)
    right = _frame(k + MORE - 1, k, "right", low.like)
    way = Reduction(low, None, left, right)
    inside = left @ low.covariance.matrix @ left.mT  # type: ignore[attr-defined]
    outside = torch.eye(len(left)).to(left) - left @ left.mT
    high = LinearProblem(Dense(inside + outside), way.lift(low.shift), samples=low.samples)
    return low, high, way


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


def _frame(n: int, columns: int, name: str, like: Tensor) -> Tensor:
    return torch.from_numpy(haar_frame(generator(SEED, f"rotation {name}"), n, columns)).to(like)


def _noise(i: int, like: Tensor) -> Tensor:
    shape = (1, *like.shape[-2:])
    return torch.from_numpy(normal(generator(SEED, f"state {i}"), *shape)).to(like)
