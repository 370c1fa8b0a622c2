"""The arguments of `simulate`, checked once and in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, checked
from loraone_theory.core.names import MethodName, RecordName, Sampling
from loraone_theory.dynamics import invariance, rates
from loraone_theory.dynamics.batches import Minibatches, minibatches
from loraone_theory.dynamics.engine import ENGINES
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem, check_problem
from loraone_theory.problems.trials import trial_seeds

REDUCE = ("auto", "never")


@dataclass(frozen=True, eq=False)
class Settings:
    """How to simulate; the fields are the arguments of `simulate`."""

    rank: int
    steps: int
    every: int
    seeds: tuple[int, ...]
    hyper: dict[str, Any]  # init_std where given, learning_rate, damping: numbers or lists
    initial: Factors | None
    record: Mapping[str, Record]
    reduce: str
    keep_factors: int | None
    until: Until | None
    batches: Minibatches | None = None
    engine: str = "torch"


def check(
    problem: Problem,
    method: MethodName | str | Method,
    *,
    rank: int,
    learning_rate: Any,
    steps: int,
    seeds: Sequence[int] | None = None,
    initial: Factors | None = None,
    init_std: Any = None,
    damping: Any = 0.0,
    record: Sequence[RecordName | str | Record] = ("loss", "risk"),
    every: int = 1,
    reduce: str = "auto",
    keep_factors: int | None = None,
    until: Until | None = None,
    batch_size: Any = None,
    sampling: Sampling | str | None = None,
    engine: str = "torch",
) -> Settings:
    """The arguments of `simulate`, each refused with one error where it breaks a rule."""
    rank = validate.rank(rank, d=check_problem(problem).d, k=problem.k)
    chosen = methods.get(method, rank)
    steps = validate.integer("steps", steps, least=1)
    every = validate.integer("every", every, least=1)
    drawn = trial_seeds(problem, seeds)
    wanted = _records(record, chosen, rank)
    validate.choice("reduce", reduce, REDUCE)
    validate.choice("engine", engine, ENGINES)
    drawing = minibatches(problem, batch_size, sampling, drawn)
    hyper = _hyper(chosen, learning_rate, init_std, damping, initial)
    if initial is not None:
        initial = _initial(initial, problem, rank, chosen)
    if keep_factors is not None:
        keep_factors = validate.integer("keep_factors", keep_factors, least=1)
    if until is not None:
        _until(until, problem, wanted)
    return Settings(
        rank, steps, every, drawn, hyper, initial, wanted, reduce, keep_factors, until, drawing,
        engine,
    )  # fmt: skip


def _records(
    record: Sequence[RecordName | str | Record], method: Method, rank: int
) -> dict[str, Record]:
    """Records by name, each known and defined for the method."""
    if isinstance(record, (str, Record)) or not isinstance(record, Sequence):
        raise TypeError(
            f"record must be a sequence of names and records; got {record!r} alone; "
            "put it into a list"
        )
    found: dict[str, Record] = {}
    for given in record:
        if isinstance(given, Record):
            row = given
            if RECORDS.get(row.name, row) is not row:
                raise ValueError(
                    f"the name of a record of one's own must be new; {row.name!r} is built in; "
                    "give it another name"
                )
        else:
            row = RECORDS[validate.choice("record", given, RECORDS)]
        if found.setdefault(row.name, row) is not row:
            raise ValueError(f"two records are called {row.name!r}; rename one of them")
        if row.invariant and RECORDS.get(row.name) is not row:
            invariance.check(row, method, rank)
        if "pair" in row.needs and not method.is_pair:
            raise ValueError(
                f"record {row.name!r} is defined for methods that train A and B; {method.name!r} "
                f"trains {method.parametrisation.name}; leave it out"
            )
    return found


def _until(until: Any, problem: Problem, wanted: Mapping[str, Record]) -> None:
    """Refuse a level of a record that has no single value, or none at all, on the problem."""
    validate.instance("until", until, Until, "write until=lt.Until('loss', 1e-6)")
    row = wanted[validate.choice("record of until", until.record, wanted)]
    if row.axis is not None:
        raise ValueError(
            f"the record of until must have one value for each run; got {row.name!r}, a vector "
            f"with the axis {row.axis!r}; record a number made of it: lt.Record(name, function)"
        )
    if (reason := row.missing(problem)) is not None:
        raise ValueError(
            f"the record of until must be known; got {row.name!r}, which {reason}; stop by another "
            "one, 'loss' for example"
        )


def _initial(initial: Factors, problem: Problem, rank: int, method: Method) -> Factors:
    """Given initial factors that fit the problem, the rank and the method."""
    if method.offset:
        raise ValueError(
            f"{method.name!r} subtracts its own initial factors from W, so with initial given it "
            "would solve another problem; to go on from where a run stopped use "
            "run.extend(steps), and to start it elsewhere, with an offset made from that start, "
            "pass method.started_at(initial) as the method"
        )
    d, k = problem.d, problem.k
    return checked("initial", initial, d=d, k=k, rank=rank, like=problem.like, owned=True)


def _hyper(
    method: Method, learning_rate: Any, init_std: Any, damping: Any, initial: Factors | None
) -> dict[str, Any]:
    hyper: dict[str, Any] = {}
    if init_std is not None:
        method.check_gaussian()
        if initial is not None:
            raise ValueError("init_std and initial exclude each other; give one of them")
        hyper["init_std"] = validate.numbers("init_std", init_std, positive=True)
    hyper["learning_rate"] = rates.checked(learning_rate)
    hyper["damping"] = validate.numbers("damping", damping)
    if not method.facts.inverts and hyper["damping"] != 0.0:
        raise ValueError(
            f"{method.name!r} inverts nothing, so it takes no damping; got damping={damping}"
        )
    return hyper
