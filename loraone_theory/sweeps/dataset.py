"""The result of a sweep with its labels: a lazy xarray.Dataset, a table, a CSV file."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loraone_theory.core.extras import extra
from loraone_theory.core.files import target, whole_file
from loraone_theory.sweeps.cells import SEED
from loraone_theory.sweeps.compute import ABSENT, CODES
from loraone_theory.sweeps.keywords import COORDINATES, STEP
from loraone_theory.sweeps.result import CURVE, Result, Variable

REASON = Variable("reason", (), (), {})
NAMES = {code: outcome.name for outcome, code in CODES.items()} | {ABSENT: ""}


def optional(name: str) -> Any:
    """A library of the extra "sweep".

    Raises:
        MissingExtra: it is not installed; with how to install it.
    """
    with extra("sweep", "use lt.Sweep(...).run() and its array and to_csv"):
        return importlib.import_module(name)


def dataset(result: Result) -> Any:
    """An xarray.Dataset whose values are read from the folder when they are asked for."""
    xarray = optional("xarray")
    lazily = _lazy(importlib.import_module("xarray.core.indexing"),
                   importlib.import_module("xarray.backends"))  # fmt: skip
    coords = {
        name: _coordinate(name, dimension, _column(values))
        for name, (dimension, values) in result.coordinates.items()
    }
    variables = {}
    for name, variable in result.variables.items():
        dims = (*result.sizes, *variable.axes)
        variables[name] = xarray.Variable(dims, lazily(result, variable), variable.attrs)
        if variable.axes == CURVE:
            coords[STEP] = _coordinate(STEP, STEP, result.steps)
    told = {"long_name": "why the runs could not be made, where they could not"}
    why = lazily(result, REASON)
    variables["reason"] = xarray.Variable(tuple(result.cells.outer), why, told)
    attrs = {"name": result.spec.name, "sweep": json.dumps(result.manifest)}
    return xarray.Dataset(variables, coords, attrs)


def _coordinate(name: str, dimension: str, values: np.ndarray) -> tuple[Any, ...]:
    """With unit and meaning, where the values are numbers that are known."""
    if name not in COORDINATES or values.dtype == object:
        return dimension, values
    units, meaning = COORDINATES[name]
    return dimension, values, {"units": units, "long_name": meaning}


def _column(values: list[Any]) -> np.ndarray:
    """Numbers as an array of them, else texts."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return np.array(values)
    return np.array([str(value) for value in values], dtype=object)


def _lazy(indexing: Any, backends: Any) -> Any:
    """What makes xarray's lazy array of a variable."""

    class Lazy(backends.BackendArray):
        """An array that reads the cells it is asked for."""

        def __init__(self, result: Result, variable: Variable) -> None:
            self.result, self.variable = result, variable
            whole = result.cells.outer if variable is REASON else result.sizes
            self.shape = (*whole.values(), *variable.sizes)
            kinds = {"outcome": np.int8, "reason": object}
            self.dtype = np.dtype(kinds.get(variable.name, np.float64))

        def __getitem__(self, key: Any) -> Any:
            how = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, how, self._read)

        def _read(self, key: tuple[Any, ...]) -> np.ndarray:
            count = len(self.shape) - len(self.variable.sizes)
            places = tuple(
                np.atleast_1d(np.arange(size)[part])
                for size, part in zip(self.shape[:count], key[:count], strict=True)
            )
            reads = self.result.reasons(places) if self.variable is REASON else None
            found = self.result.read(self.variable, places) if reads is None else reads
            single = tuple(0 if np.ndim(p) == 0 and not isinstance(p, slice) else slice(None)
                           for p in key[:count])  # fmt: skip
            return found[(*single, *key[count:])]

    return lambda result, variable: indexing.LazilyIndexedArray(Lazy(result, variable))


def rows(result: Result) -> Iterator[dict[str, Any]]:
    """One row for each run, in order: coordinates, numbers, outcome and reason.

    Vectors have a column for each entry; curves are left out. Read cell by cell, so that a long
    table takes no memory.
    """
    coords = {name: values for name, (_, values) in result.coordinates.items()}
    names = list(result.sizes)
    for cell in result.cells:
        kept = result.stored(cell)
        spans = [cell.place[name] for name in names]
        ranges = [range(s, s + 1) if isinstance(s, int) else range(s.start, s.stop) for s in spans]
        for place in itertools.product(*ranges):
            where = dict(zip(names, place, strict=True))
            row: dict[str, Any] = {
                name: coords[name][where[dimension]]
                for name, (dimension, _) in result.coordinates.items()
            }
            inside = [where[name] - ranges[names.index(name)].start for name in cell.batched]
            inside.append(where[SEED] - ranges[names.index(SEED)].start if SEED in where else 0)
            for name, variable in result.variables.items():
                if variable.axes != CURVE:
                    row |= _entries(name, variable, kept, tuple(inside))
            row["reason"] = "" if kept is None else kept.about["failure"]
            yield row


def _entries(name: str, variable: Variable, kept: Any, inside: tuple[int, ...]) -> dict[str, Any]:
    missing = kept is None or name not in kept.arrays
    if name == "outcome":
        return {name: "" if missing else NAMES[int(kept.arrays[name][inside])]}
    whole = np.full(variable.sizes, np.nan)
    if not missing:
        values = np.asarray(kept.arrays[name][inside], dtype=np.float64)
        whole[tuple(slice(0, n) for n in values.shape)] = values
    if not variable.sizes:
        return {name: float(whole)}
    return {f"{name}_{'_'.join(map(str, i))}": float(v) for i, v in np.ndenumerate(whole)}


def to_csv(result: Result, path: str | Path) -> None:
    """The table of `rows` as a CSV file, whole or not at all; numbers with all their digits."""
    target(path, ".csv")
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer: Any = None
        for row in rows(result):
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({k: "" if v != v else v for k, v in row.items()})


def to_pandas(result: Result) -> Any:
    """The table of `rows` as a pandas.DataFrame, which writes Parquet among others."""
    return optional("pandas").DataFrame(rows(result))
