"""What a sweep varies, holds fixed and keeps; checked whole before anything is written."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.methods import METHODS, Method
from loraone_theory.problems.recipes import SAMPLERS
from loraone_theory.sweeps import keywords, values
from loraone_theory.sweeps.measures import Kept, measure
from loraone_theory.sweeps.own import written

POINT = "point"
# Trials of one cell at most: those of a batch share the cost of a step, and this many suffice.
RUNS_PER_CELL = 128
FORM = ("name", "fixed", "axes", "together", "measure", "runs_per_cell")


@dataclass(frozen=True, eq=False)
class Specification:
    """A sweep as it is asked for; make one with `specification` or `read`.

    Args:
        name: of the sweep; a folder holds cells of one name.
        fixed: values by name.
        axes: name -> values, a dimension each.
        together: name -> values, all of one length: one dimension, called "point".
        measures: what is kept of every run.
        runs_per_cell: trials of a cell at most.
    """

    name: str
    fixed: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    together: Mapping[str, tuple[Any, ...]]
    measures: Mapping[str, Kept]
    runs_per_cell: int = RUNS_PER_CELL

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Dimension -> its length, in the order of the result; what is batched comes last."""
        found = {name: len(given) for name, given in self.axes.items() if name not in self.batched}
        if self.together:
            found[POINT] = len(next(iter(self.together.values())))
        return found | {name: len(self.axes[name]) for name in self.batched}

    @cached_property
    def batched(self) -> tuple[str, ...]:
        """The axes that run as one batch inside a cell, in the order of the batch.

        With a learning rate to be found for each setting, the rest of the setting does not vary
        within a cell.
        """
        names = ("learning_rate", "seed") if self.seeks else keywords.BATCHED
        return tuple(name for name in names if name in self.axes)

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return math.prod(self.sizes.values())

    @cached_property
    def seeks(self) -> bool:
        """Whether some learning rate is to be found ("best")."""
        rates = (*self.axes.get("learning_rate", ()), *self.together.get("learning_rate", ()))
        return any(isinstance(rate, str) for rate in (self.fixed.get("learning_rate"), *rates))

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "fixed": {name: written(name, value) for name, value in self.fixed.items()},
            "axes": {name: written(name, value) for name, value in self.axes.items()},
            "together": {name: written(name, value) for name, value in self.together.items()},
            "measure": {name: each.described() for name, each in self.measures.items()},
            "runs_per_cell": self.runs_per_cell,
        }


def specification(
    *,
    fixed: Mapping[str, Any],
    axes: Mapping[str, Any] | None = None,
    together: Mapping[str, Any] | None = None,
    measure: Mapping[str, Any] | None = None,
    name: str = "sweep",
    runs_per_cell: int = RUNS_PER_CELL,
) -> Specification:
    """A sweep from its tables, each refused with one error where it breaks a rule.

    >>> spec = specification(
    ...     fixed={"sampler": "sample_linear", "d": 8, "k": 6, "true_rank": 2, "samples": 60,
    ...            "method": "lora-one", "learning_rate": 0.2, "steps": 50},
    ...     axes={"rank": [1, 2, 3], "seed": range(4)},
    ...     measure={"risk": "final"},
    ... )
    >>> spec.sizes, spec.runs
    ({'rank': 3, 'seed': 4}, 12)

    Raises:
        TypeError, ValueError: an unknown name or value; what a sampler needs and is not given.
    """
    tables = {"fixed": fixed, "axes": axes or {}, "together": together or {}}
    for label, table in tables.items():
        if not isinstance(table, Mapping):
            raise values.unfit(label, table)
    if measure is not None and not isinstance(measure, Mapping):
        raise values.unfit("measure", measure)
    listed = {
        label: {key: values.along(key, given) for key, given in tables[label].items()}
        for label in ("axes", "together")
    }
    _each_once(tables)
    _lengths(listed["together"])
    given = {**{key: [one] for key, one in fixed.items()}, **listed["axes"], **listed["together"]}
    _needed(given, keywords.NEEDED[:2])  # which say what other names there are
    _known(given)
    _needed(given, keywords.NEEDED)
    spec = Specification(
        name=_named(name),
        fixed={key: values.used(key, given) for key, given in fixed.items()},
        axes={key: _different(key, given) for key, given in listed["axes"].items()},
        together={
            key: tuple(values.used(key, one) for one in given)
            for key, given in listed["together"].items()
        },
        measures=_measures(measure or {"loss": "final"}),
        runs_per_cell=validate.integer("runs_per_cell", runs_per_cell, least=1),
    )
    taken = {POINT, *spec.sizes, *spec.together, *keywords.KEPT}
    for key in spec.measures:
        if key in taken:
            raise ValueError(f"a measure must have a name of its own; {key!r} is taken; rename it")
    spec.described()  # refuses values that cannot be told apart
    return spec


def _named(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a non-empty string; got {name!r}")
    return name


def _measures(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: measure(key, value) for key, value in given.items()}
    rows: dict[str, Any] = {}
    for each in found.values():
        if rows.setdefault(each.name, each.row) is not each.row:
            raise ValueError(f"two records are called {each.name!r}; rename one of them")
    return found


def _each_once(tables: Mapping[str, Mapping[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for label, table in tables.items():
        for key in table:
            if key in seen:
                raise ValueError(
                    f"{key!r} must be given once; got it in {seen[key]} and in {label}; leave one"
                )
            seen[key] = label
    if keywords.RATIO in seen:
        for key in keywords.COUNTS:
            if key in seen:
                raise ValueError(
                    f"{keywords.RATIO} decides {key}; got both in {seen[key]}; leave one out"
                )


def _lengths(columns: Mapping[str, list[Any]]) -> None:
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ValueError(
            f"the lists of together are the columns of one table and must be of one length; {told}"
        )
    if "seed" in columns:
        raise ValueError("seed varies in every point alike; put it into axes or fixed")


def _different(name: str, given: Iterable[Any]) -> tuple[Any, ...]:
    found = tuple(values.used(name, one) for one in given)
    seen = set()  # an axis of a million seeds is not compared with itself
    for one in (values.label(name, value) for value in found):
        if one in seen:
            raise ValueError(f"the values of an axis must differ; {name} has {one!r} twice")
        seen.add(one)
    return found


def _needed(given: Mapping[str, list[Any]], names: Sequence[str]) -> None:
    for key in names:
        if key not in given:
            raise ValueError(f"{key} must be given; put it into fixed, or into axes as a list")


def _known(given: Mapping[str, list[Any]]) -> None:
    """Names that every sampler and method of the sweep takes, and all that a sampler needs."""
    samplers = [values.used("sampler", one) for one in given["sampler"]]
    methods = [values.used("method", one) for one in given["method"]]
    hyper = [  # of a method that is made already, nothing can be set
        () if isinstance(method, Method) else keywords.own_hyper(METHODS[method["name"]])
        for method in methods
    ]
    shared = set(hyper[0]).intersection(*hyper[1:])
    for sampler in samplers:
        takes = keywords.taken(sampler)
        known = {*takes.names, *keywords.RUN, "sampler", "seed", keywords.RATIO, *shared}
        for key in given:
            validate.choice("name", key, sorted(known))
        if any(sampler is ours for ours in SAMPLERS.values()):
            for key, check in keywords.OF_SAMPLERS.items():
                for one in given.get(key, ()):
                    check(key, one)
        counts = keywords.COUNTS if keywords.RATIO in given else ()
        for key in takes.needed:
            if key not in given and key not in counts:
                raise ValueError(
                    f"{key} must be given, for {sampler.__name__} needs it; put it into fixed, or "
                    "into axes as a list"
                )
    for method in methods:
        if not isinstance(method, Method):
            _hyper_of(method, given)


def _hyper_of(method: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    known = keywords.own_hyper(METHODS[method["name"]])
    for key in method:
        if key in given:
            raise ValueError(
                f"{key!r} must be given once; got it in the method and beside it; leave one"
            )
        validate.choice(f"hyper-parameter of {method['name']!r}", key, ("name", *known))
    METHODS[method["name"]](**{key: value for key, value in method.items() if key != "name"})


def read(path: str | Path) -> Specification:
    """A sweep from a TOML file with the tables fixed, axes, together and measure.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or breaks a rule of `specification`.
    """
    path = storage.as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a sweep's .toml")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a TOML file: {error}") from None
    for key in found:
        validate.choice(f"key of {path.name}", key, FORM)
    if "fixed" not in found:
        raise ValueError(f"{path} must have a table [fixed] with sampler, method, rank, ...")
    return specification(**{"name": path.stem, **found})


__all__ = ["POINT", "RUNS_PER_CELL", "Specification", "read", "specification"]
