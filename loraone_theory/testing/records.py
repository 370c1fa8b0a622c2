"""What the loop relies on in a record."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.dynamics import invariance, settings
from loraone_theory.dynamics.execution import prepare
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import Record
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.testing.base import RANK, ContractError, D, K, copied, require, same_bits

TIMES = 3
# Time by time and together, sums run in another order, which a subspace's gap may enlarge.
TOLERANCE = 1e-8


def check_record(record: Record, *, method: str = "lora-one") -> None:
    """Hold a record to what the loop relies on; nothing is returned.

    It has one value, or one vector, for each time and run; times and runs do not touch each other;
    what it sees is not written to; the same view gives the same bits; and where it says that it is
    rotation-invariant, it is.

    Args:
        record: which.
        method: whose tensors it is tried on.

    Raises:
        ContractError: a promise is broken; the message says which.

    >>> check_record(Record("size", lambda view: view.singular_values.sum(-1), invariant=True))
    """
    record = validate.instance("record", record, Record)
    chosen = methods.get(method, RANK)
    if record.invariant:
        try:
            invariance.check(record, chosen, RANK)
        except ValueError as error:
            raise ContractError(str(error)) from error
    problem = sample_linear(d=D, k=K, true_rank=2, samples=6 * D, seeds=(0, 1), keep_inputs=True)
    given = {"rank": RANK, "learning_rate": [0.05, 0.1], "steps": 1, "reduce": "never"}
    plan = prepare(problem, chosen, settings.check(problem, chosen, record=(), **given))  # type: ignore[arg-type]
    state = tuple(_noise(i, tensor) for i, tensor in enumerate(plan.start.trainable))
    before = copied(state)
    whole = _measured(record, plan, state)
    require(
        same_bits(before, state), f"record {record.name!r} must not write to the tensors it sees"
    )
    require(
        same_bits(whole, _measured(record, plan, state)),
        f"record {record.name!r} must give the same bits for the same view",
    )
    for t in range(TIMES):
        alone = _measured(record, plan, tuple(tensor[t : t + 1] for tensor in state))[0]
        require(
            torch.allclose(whole[t], alone, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True),
            f"record {record.name!r} must measure each time by itself",
        )
    for axis in (1, 2):  # of learning rates and of seeds
        other = tuple(tensor.clone() for tensor in state)
        for tensor in other:
            tensor.select(axis, 0).mul_(2.0)
        here, there = (
            values.narrow(axis, 1, 1) for values in (whole, _measured(record, plan, other))
        )
        require(
            torch.allclose(here, there, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True),
            f"record {record.name!r} must measure each run of a batch by itself",
        )


def _measured(record: Record, plan: Plan, state: tuple[Tensor, ...]) -> Tensor:
    view = plan.view(state, lift=False)
    found = record.measure(view)
    changed = view.overwritten()
    require(
        not changed,
        f"record {record.name!r} must not write to what it sees; it changed "
        f"{', '.join(f'view.{name}' for name in changed)} in place",
    )
    require(isinstance(found, Tensor), f"record {record.name!r} must return a tensor")
    require(not found.is_complex(), f"record {record.name!r} must have real values")
    lead = (len(state[0]), *plan.batch.shape)
    ok = found.shape[: len(lead)] == lead and found.ndim == len(lead) + (record.axis is not None)
    require(
        ok,
        f"record {record.name!r} must have shape (times, *batch) = {lead}"
        f"{' and one more axis' if record.axis else ''}; got {tuple(found.shape)}",
    )
    return found


def _noise(i: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    shape = (TIMES, *like.shape)
    return torch.randn(shape, generator=generator, dtype=like.dtype)
