"""What determined the numbers of a run, as JSON, and the run again from it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.fingerprint import fingerprint, is_installed
from loraone_theory.core.plain import plain
from loraone_theory.dynamics import rates, settings
from loraone_theory.dynamics.execution import prepare
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import Method
from loraone_theory.methods.base import GIVEN
from loraone_theory.problems import recipes
from loraone_theory.problems.autograd import LossProblem
from loraone_theory.problems.base import Problem, check_problem, facts

# What a config must hold for its run to be made again; the other keys came later, or only tell.
NEEDED = (
    "problem", "method", "hyper", "rank", "steps", "every", "seeds", "learning_rate", "damping",
    "init_std", "swept_init_std", "initial", "record", "reduce", "keep_factors", "until",
)  # fmt: skip
PACKAGES = ("loraone-theory", "torch", "numpy", "scipy")


def config(plan: Plan, threads: int | None = None) -> dict[str, Any]:
    """Everything that determined the numbers of a run.

    Args:
        plan: of the run.
        threads: that it was carried out with, None for as many as now.
    """
    used, like = plan.settings, plan.problem.like
    given = None if used.initial is None else fingerprint(tuple(used.initial))
    hyper = _as_ran(plan.chosen.hyper, given, used.hyper.get("init_std"))
    return {
        "problem": described(plan.given),
        "method": plan.chosen.name,
        "hyper": hyper,
        "rank": used.rank,
        "steps": used.steps,
        "every": used.every,
        "seeds": list(used.seeds),
        "learning_rate": rates.described(used.hyper["learning_rate"]),
        "damping": used.hyper["damping"],
        "init_std": hyper["init_std"],
        "swept_init_std": "init_std" in used.hyper,
        "initial": given,
        "record": [_record(row) for row in used.record.values()],
        "reduce": used.reduce,
        "reduced": plan.reduction is not None,
        "keep_factors": used.keep_factors,
        "batch_size": None if used.batches is None else used.batches.size,
        "sampling": None if used.batches is None else used.batches.sampling,
        "engine": used.engine,
        "until": None if used.until is None else dataclasses.asdict(used.until),
        "dtype": plain(like.dtype),
        "device": like.device.type,
        "threads": torch.get_num_threads() if threads is None else threads,
        "versions": versions(used.engine),
    }


def has_own(plan: Plan) -> bool:
    """Whether functions of the user's own are part of the run: what those reach may change."""
    used, method = plan.settings, plan.chosen
    kind = type(plan.given)
    return (
        method.start.own is not None
        or method.train.own is not None
        or any(RECORDS.get(row.name) is not row for row in used.record.values())
        or any(callable(rate) and type(rate) not in rates.OURS for rate in plan.batch.rates.values)
        or kind is LossProblem
        or not is_installed(kind.__module__)
    )


def unchanged(recorded: Mapping[str, Any], plan: Plan) -> None:
    """Parts of the user's own are what they were when the runs were made.

    Raises:
        ValueError: one has changed since.
    """
    now = plain(config(plan))
    for part in ("problem", "hyper", "record", "learning_rate"):
        if now[part] != plain(recorded[part]):
            raise ValueError(
                f"the {part} of this run has changed since it was made: its code, or what that "
                f"reaches, is now {now[part]}, and was {recorded[part]}; simulate again, or go "
                "back to what the run was made with"
            )


def _as_ran(hyper: Mapping[str, Any], initial: str | None, std: Any) -> dict[str, Any]:
    """`Method.hyper` with what a call decided in place of the method.

    Args:
        hyper: of the method as it was handed in.
        initial: the fingerprint of factors that the call gave, or None.
        std: the call's init_std, or None.
    """
    if initial is not None:
        start = {"name": GIVEN, "fingerprint": initial}
        return {**hyper, "init": start, "init_std": None}
    return dict(hyper) if std is None else {**hyper, "init_std": std}


def described(problem: Problem) -> dict[str, Any]:
    """A problem for records: what drew it, where that is known, and the fingerprint of its data."""
    recipe = facts(problem).recipe
    return {
        "type": type(problem).__name__,
        "recipe": None if recipe is None else dict(recipe),
        "fingerprint": fingerprint(_content(problem)),
    }


def _content(thing: Any) -> Any:
    """What of an object determines its values, for a fingerprint."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = [field for field in dataclasses.fields(thing) if "revealed" not in field.metadata]
        found = {field.name: getattr(thing, field.name) for field in fields}
        left_out = ("seeds", "recipe")
        parts = [(n, _content(v)) for n, v in found.items() if n not in left_out]
        kind = type(thing)
        told = (kind.__name__,) if is_installed(kind.__module__) else (kind.__name__, kind)
        return (*told, parts)
    if isinstance(thing, (tuple, list)):
        return tuple(_content(part) for part in thing)
    return thing


def _record(row: Record) -> Any:
    if RECORDS.get(row.name) is row:
        return row.name
    return {"name": row.name, "fingerprint": fingerprint(row.measure)}


def versions(engine: str = "torch") -> dict[str, str]:
    """Of the packages that numbers come from."""
    packages = (*PACKAGES, *(() if engine in PACKAGES else (engine,)))
    return {package: _version(package) for package in packages}


@functools.lru_cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def plan_of(
    config: Mapping[str, Any],
    *,
    problem: Problem | None = None,
    method: Method | None = None,
    initial: Factors | None = None,
    records: Sequence[Record] = (),
    learning_rate: Any = None,
) -> Plan:
    """The plan of a run from its `config`.

    Raises:
        ValueError: a part that was the user's own is missing, or is not the one recorded.
    """
    if absent := [key for key in NEEDED if key not in config]:
        raise ValueError(
            f"this config does not hold all that determined the run: {', '.join(absent)} is "
            "missing; it was written by a former version, or changed; simulate with its method, "
            "rank, steps and learning_rate by hand"
        )
    problem = _problem(config["problem"], problem)
    if initial is not None and config["initial"] is None:
        raise ValueError(
            "initial must be left out where the run started from its method's own initialisation; "
            f"got factors of type {type(initial).__name__}"
        )
    if config["initial"] is not None:
        _held("initial", initial, config["initial"], initial and tuple(initial))
    method = _method(config, method, initial)
    until = config["until"]
    checked = settings.check(
        problem,
        method,
        rank=config["rank"],
        learning_rate=_rate(config["learning_rate"], learning_rate),
        steps=config["steps"],
        seeds=config["seeds"],
        initial=initial,
        init_std=_std(config),
        damping=config["damping"],
        record=[_found(row, records) for row in config["record"]],
        every=config["every"],
        reduce=config["reduce"],
        keep_factors=config["keep_factors"],
        batch_size=config.get("batch_size"),
        sampling=config.get("sampling"),
        engine=config.get("engine", "torch"),
        until=None if until is None else Until(**until),
    )
    return prepare(problem, method, checked)


def agree(
    plan: Plan, problem: Problem | None, method: Method | None, learning_rate: Any = None
) -> None:
    """What is handed in without need is what the runs were made with.

    Raises:
        ValueError: it is not.
    """
    if problem is not None:
        _problem(described(plan.given), check_problem(problem))
    if method is not None:
        _method(config(plan), validate.instance("method", method, Method), None)
    if learning_rate is not None:
        _rate(config(plan)["learning_rate"], learning_rate)


def _problem(recorded: Mapping[str, Any], given: Problem | None) -> Problem:
    if given is None and recorded["recipe"] is not None:
        given = recipes.rebuild(recorded["recipe"])
    if given is None:
        raise ValueError(
            f"the problem, a {recorded['type']}, was made from data that the record does not hold; "
            "hand it in again: problem=..."
        )
    _same("problem", described(given)["fingerprint"], recorded["fingerprint"])
    return given


def _std(config: Mapping[str, Any]) -> Any:
    """The init_std of the call, None where it had none."""
    return config["init_std"] if config["swept_init_std"] else None


def _method(config: Mapping[str, Any], given: Method | None, initial: Factors | None) -> Method:
    call = config["initial"], _std(config)
    held = _as_ran(config["hyper"], *call)  # former versions held that before the call
    if given is not None:
        method = methods.get(given, config["rank"])
        found = _as_ran(method.hyper, *call)
        _same("method", fingerprint(plain(found)), fingerprint(plain(held)))
        return method
    parts = ("rule",) if initial is not None else ("init", "rule")
    own = [part for part in parts if "fingerprint" in held.get(part, {})]
    if own:
        name = held[own[0]]["name"]
        raise ValueError(
            f"the {own[0]} {name!r} of method {config['method']!r} was made by a user and is "
            "not in the record; hand the method in again: method=..."
        )
    if isinstance(call[1], list):  # any of them, for the call has all
        held["init_std"] = call[1][0]
    return methods.rebuild(config["method"], held, initial=initial)


def _rate(recorded: Any, given: Any) -> Any:
    if given is not None:
        _same("learning_rate", str(rates.described(rates.checked(given))), str(recorded))
        return given
    return rates.rebuilt(recorded)


def _found(recorded: Any, records: Sequence[Record]) -> str | Record:
    if isinstance(recorded, str):
        return recorded
    for row in records:
        if row.name == recorded["name"]:
            _same(f"record {row.name!r}", fingerprint(row.measure), recorded["fingerprint"])
            return row
    raise ValueError(
        f"the record {recorded['name']!r} was the user's own; hand it in again: records=[...]"
    )


def _held(name: str, given: Any, recorded: str, content: Any) -> None:
    if given is None:
        raise ValueError(f"{name} was given by hand; hand it in again: {name}=...")
    _same(name, fingerprint(content), recorded)


def _same(name: str, found: str, recorded: str) -> None:
    if found != recorded:
        raise ValueError(
            f"the {name} handed in is not the one that was recorded: its fingerprint is {found}, "
            f"that of the record {recorded}; use what the run was made with"
        )
