"""From the arguments of `simulate` to tensors: batch axes, hyper-parameters, start, reduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import memory, tall, validate
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.dynamics.records import ALIGNMENTS, RECORDS
from loraone_theory.methods import Method
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.rules import Rule
from loraone_theory.problems.base import Problem, facts
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import Axes, Reduction, reduce_around
from loraone_theory.problems.trials import instance_count, problem_seeds

REDUCE = ("auto", "never")


@dataclass(frozen=True)
class Batch:
    """The batch of runs: hyper-parameter axes first, then the instances' axes, seeds last."""

    axes: tuple[str, ...]
    coordinates: dict[str, tuple[float, ...]]
    shape: torch.Size
    hyper: dict[str, Scalar]  # numbers, or tensors (*batch-broadcastable, 1, 1)


@dataclass(frozen=True)
class Plan:
    """Everything the loop needs, in the coordinates it runs in."""

    problem: Problem
    method: Method
    rule: Rule
    start: Start  # expanded to the batch, reduced
    batch: Batch
    reduction: Reduction | None
    original: Start  # as the initialisation gave it


def make_batch(
    problem: Problem, seeds: tuple[int, ...], hyper: dict[str, Any], like: Tensor
) -> Batch:
    """Name and size the batch axes; sequences among `hyper` become leading axes."""
    instances = problem.batch_shape
    last = instance_count(problem)
    if last > 1 and len(seeds) not in (1, last):
        raise ValueError(
            "on a batched problem trial i runs on instance i: seeds must hold one seed, or as "
            f"many as there are instances; got {len(seeds)} seeds for {last} instances"
        )
    trials = (*instances[:-1], max(last, len(seeds)))
    swept = {name: value for name, value in hyper.items() if isinstance(value, list)}
    shape = torch.Size((*(len(v) for v in swept.values()), *trials))
    tensors: dict[str, Scalar] = {k: v for k, v in hyper.items() if k not in swept}
    for axis, (name, values) in enumerate(swept.items()):
        trailing = len(shape) - axis - 1
        column = torch.tensor(values, dtype=torch.float64).to(like)
        tensors[name] = column.reshape(-1, *([1] * trailing), 1, 1)
    axes = (*swept, *(f"instance{i}" for i in range(len(instances) - 1)), "seed")
    coordinates = {name: tuple(values) for name, values in swept.items()}
    for i, size in enumerate(instances[:-1]):
        coordinates[f"instance{i}"] = tuple(range(size))
    coordinates["seed"] = _one_each(seeds, trials[-1])
    known = problem_seeds(problem)
    if known is not None and _one_each(known, trials[-1]) != coordinates["seed"]:
        coordinates["problem_seed"] = _one_each(known, trials[-1])
    return Batch(axes, coordinates, shape, tensors)


def _one_each(seeds: tuple[int, ...], trials: int) -> tuple[int, ...]:
    return seeds if len(seeds) == trials else seeds * trials


def check_size(
    problem: Problem, batch: Batch, rank: int, record: Sequence[str], recorded: int
) -> None:
    """What is kept of the runs fits in memory: records, and the factors of every run."""
    runs = batch.shape.numel()
    memory.refuse_beyond_memory(
        f"records of {len(record)} numbers at {recorded:,} steps of {runs:,} runs",
        # A step's number is kept as an integer of Python as well.
        recorded * (100 + len(record) * runs * problem.like.element_size()),
        "raise every, or record less",
    )
    memory.refuse_beyond_memory(
        f"factors of {runs:,} runs, d = {problem.d}, k = {problem.k}, r = {rank},",
        2 * runs * rank * (problem.d + problem.k) * problem.like.element_size(),
        "take fewer runs at once",
    )


def check_records(record: Sequence[str], method: Method) -> tuple[str, ...]:
    """The record names, each known and defined for the method."""
    if isinstance(record, str):
        raise TypeError(f"record must be a sequence of names; got the string {record!r}")
    for name in record:
        validate.choice("record", name, RECORDS)
        if name == "balance" and not method.parametrisation.is_pair:
            raise ValueError(
                f"record 'balance' is defined for methods that train A and B; {method.name!r} "
                f"trains {method.parametrisation.name}; leave it out"
            )
    return tuple(dict.fromkeys(record))


def check_initial(initial: Factors, problem: Problem, rank: int, method: Method) -> Factors:
    """Given initial factors that fit the problem, the rank and the method."""
    if method.offset:
        raise ValueError(
            f"{method.name!r} subtracts its own initial factors from W, so with initial given it "
            "would solve another problem; to go on from where a run stopped use "
            "run.extend(steps), and to start it elsewhere, with an offset made from that start, "
            "pass method.started_at(initial) as the method"
        )
    A = validate.tensor("initial.A", initial.A)
    B = validate.tensor("initial.B", initial.B)
    validate.same_kind(**{"problem": problem.like, "initial.A": A, "initial.B": B})
    validate.shapes_match(
        f"initial must be A (..., {problem.d}, {rank}) and B (..., {rank}, {problem.k})",
        A.shape[-2:] == (problem.d, rank) and B.shape[-2:] == (rank, problem.k),
        A=A.shape,
        B=B.shape,
    )
    return Factors(A, B)


def make_plan(
    problem: Problem,
    method: Method,
    *,
    rank: int,
    batch: Batch,
    seeds: tuple[int, ...],
    initial: Factors | None,
    reduce: str,
) -> Plan:
    """Initialise, reduce where that is exact, and expand the start to the batch."""
    rule = method.rule(batch.hyper["learning_rate"], batch.hyper["damping"])
    if facts(problem).matrix_free and not rule.equivariant:
        raise ValueError(
            f"{method.name!r} is not rotation-equivariant, and this problem is known up to a "
            "rotation only; draw it with sample_linear instead of sample_linear_matrix_free"
        )
    if initial is not None:
        method = method.started_at(initial)
    elif "init_std" in batch.hyper:
        method = method.with_init_std(batch.hyper["init_std"])
    original = method.init(problem, rank, seeds)
    if original.offset is not None:
        problem = problem.with_offset(original.offset)
    for tensor in original.trainable:
        validate.expands_to("initial factors", tensor.shape[:-2], batch.shape)
    reduction = None
    start = original
    if reduce == "auto" and type(problem) is LinearProblem and rule.equivariant:
        axes = method.parametrisation
        placed = [
            *zip(original.trainable, axes.trainable_axes, strict=True),
            *zip(original.frozen, axes.frozen_axes, strict=True),
        ]
        reduction = reduce_around(problem, placed)
        lowered = [reduction.lower_tensor(tensor, where) for tensor, where in placed]
        count = len(original.trainable)
        start = Start(tuple(lowered[:count]), tuple(lowered[count:]))
        problem = reduction.problem
    trainable = tuple(_expanded(tall.layout(tensor), batch) for tensor in start.trainable)
    return Plan(problem, method, rule, Start(trainable, start.frozen), batch, reduction, original)


def first(plan: Plan) -> Params:
    """The trainable tensors at t = 0, as the initialisation gave them, one for each run."""
    return tuple(_expanded(tensor, plan.batch) for tensor in plan.original.trainable)


def _expanded(tensor: Tensor, batch: Batch) -> Tensor:
    return tensor.expand(*batch.shape, *tensor.shape[-2:])


def lifted(plan: Plan, trainable: Params) -> Params:
    """Trainable tensors of the loop in the original coordinates."""
    if plan.reduction is None:
        return trainable
    return tuple(
        plan.reduction.lift_tensor(tensor, axes)
        for tensor, axes in zip(trainable, _trainable_axes(plan), strict=True)
    )


def _trainable_axes(plan: Plan) -> tuple[Axes, ...]:
    return plan.method.parametrisation.trainable_axes


def outer_factors(plan: Plan, trainable: Params) -> Factors:
    """The pair (A, B) itself, or the factors of the learned shift, in original coordinates."""
    if plan.method.parametrisation.is_pair:
        return Factors(*trainable)
    return plan.method.parametrisation.shift(trainable, plan.original.frozen)


def needs_reference(record: Sequence[str]) -> bool:
    """Whether any record compares with the gradient's subspaces."""
    return not ALIGNMENTS.isdisjoint(record)
