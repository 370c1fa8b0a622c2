"""The results of a sweep, read from its folder as far as they are asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loraone_theory.core.status import Outcome
from loraone_theory.sweeps.cells import SEED, Cell, Cells
from loraone_theory.sweeps.compute import ABSENT, CODES
from loraone_theory.sweeps.keywords import STEP
from loraone_theory.sweeps.manifest import specification_of, versions_of
from loraone_theory.sweeps.specification import POINT
from loraone_theory.sweeps.store import Store, Stored

# The dimension of curves.
CURVE = (STEP,)
# Whole numbers for those parts of an index that are single.
Index = tuple[np.ndarray, ...]


class Variable(NamedTuple):
    """One array of the result.

    Args:
        name: its key in the files.
        axes: names of the dimensions of a vector after those of the sweep.
        sizes: of those.
        attrs: units and what it is.
    """

    name: str
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    attrs: dict[str, Any]


class Result:
    """The finished cells of a folder, in the order and with the labels of its manifest.

    Raises:
        FileNotFoundError: the folder holds no sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        manifest = self.store.manifest()
        if manifest is None:
            raise FileNotFoundError(
                f"{folder} must be the folder of a sweep, and has no sweep.json; run one into it"
            )
        self.manifest = manifest
        self.spec = specification_of(manifest)
        self.cells = Cells(self.spec, versions_of(manifest))
        self.sizes = self.spec.sizes

    @property
    def coordinates(self) -> dict[str, tuple[str, list[Any]]]:
        """Name -> its dimension and values."""
        labels = self.manifest["labels"]
        found = {name: (name, labels[name]) for name in self.spec.axes}
        found |= {name: (POINT, labels[name]) for name in self.spec.together}
        return found

    def stored(self, cell: Cell) -> Stored | None:
        """What became of a cell, None while it is not finished."""
        return self.store.read(cell.key) if self.store.has(cell.key) else None

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """All of them: measures first, then how the runs ended."""
        found = {}
        for name, each in self.spec.measures.items():
            attrs = {"units": each.unit, "long_name": each.doc}
            if each.is_curve:
                found[name] = Variable(name, CURVE, (len(self.steps),), attrs)
                continue
            sizes = () if each.trailing is None else self._vector(name)
            axes: tuple[str, ...] = tuple(f"{name}_{i}" for i in range(len(sizes)))
            if each.trailing and len(sizes) == 1:
                axes = (f"{name}_{each.trailing}",)
            found[name] = Variable(name, axes, sizes, attrs)
        outcome = {
            "long_name": "how the run ended",
            "flag_values": [ABSENT, *CODES.values()],
            "flag_meanings": " ".join(["ABSENT", *(o.name for o in Outcome)]),
        }
        found["outcome"] = Variable("outcome", (), (), outcome)
        at = {"units": "step", "long_name": "the last step, or the one at which it diverged"}
        found["stopped_at"] = Variable("stopped_at", (), (), at)
        if self.spec.seeks:
            rate = {"units": "1", "long_name": "the learning rate that was found or given"}
            found["used_learning_rate"] = Variable("used_learning_rate", (), (), rate)
        return found

    @cached_property
    def steps(self) -> np.ndarray:
        """The steps at which curves have a value in any cell, in order.

        Cells differ in them where their number or how often is recorded varies, or where `until`
        ended some of them early.
        """
        there = (self.stored(cell) for cell in self.cells)
        found = {
            s for kept in there if kept and STEP in kept.arrays for s in kept.arrays[STEP].tolist()
        }
        return np.array(sorted(found), dtype=np.int64)

    def _vector(self, name: str) -> tuple[int, ...]:
        """The trailing shape of a variable: of the longest in any cell."""
        longest: list[int] = []
        for cell in self.cells:
            kept = self.stored(cell)
            if kept is not None and name in kept.arrays:
                shape = kept.arrays[name].shape[len(cell.batched) + 1 :]
                both = itertools.zip_longest(longest, shape, fillvalue=0)
                longest = [max(a, b) for a, b in both]
        return tuple(longest)

    def read(self, variable: Variable, index: Index | None = None) -> np.ndarray:
        """Values at a grid of places, (len of each part of the index, *trailing); NaN where none.

        Only the files of cells that have a part in it are read.
        """
        if index is None:
            index = tuple(np.arange(size) for size in self.sizes.values())
        shape = (*(len(part) for part in index), *variable.sizes)
        codes = variable.name == "outcome"
        fill: Any = ABSENT if codes else math.nan
        out = np.full(shape, fill, dtype=np.int8 if codes else np.float64)
        for cell, target, source in self._parts(index):
            kept = self.stored(cell)
            if kept is None or variable.name not in kept.arrays:
                continue
            values = self._spread(kept.arrays[variable.name], variable, kept)
            if SEED not in self.sizes:
                values = values[(slice(None),) * len(cell.batched) + (0,)]
            at, rows = target
            vector = tuple(slice(0, n) for n in values.shape[len(source) :])
            out[(*at, ...)][(*rows, *vector)] = values[np.ix_(*source)] if source else values
        return out

    def _spread(self, values: np.ndarray, variable: Variable, kept: Stored) -> np.ndarray:
        """Values of a cell, those of a curve over the steps of all cells, NaN at others."""
        if variable.axes != CURVE:
            return values
        out = np.full((*values.shape[:-1], len(self.steps)), math.nan)
        out[..., np.searchsorted(self.steps, kept.arrays[STEP])] = values
        return out

    def _parts(self, index: Index) -> Iterator[tuple[Cell, Any, list[np.ndarray]]]:
        """(cell, where its values go, which of them) for all cells with a part in the index."""
        names = list(self.sizes)
        outer = len(self.cells.outer)
        inner = names[outer:]
        seeds = index[-1] if SEED in self.sizes else np.arange(1)
        for at in itertools.product(*(range(len(part)) for part in index[:outer])):
            where = tuple(int(part[i]) for part, i in zip(index[:outer], at, strict=True))
            flat = int(np.ravel_multi_index(where, tuple(self.cells.outer.values()))) if at else 0
            numbers, piece = self.cells.at(flat), self.cells.piece(flat)
            for number in np.unique(seeds // piece):
                mine = np.flatnonzero(seeds // piece == number)
                cell = self.cells[numbers[int(number)]]
                source = [index[outer + i] for i, name in enumerate(inner) if name != SEED]
                rows: list[Any] = [slice(None)] * len(source)
                if SEED in self.sizes:
                    source.append(seeds[mine] - int(number) * piece)
                    rows.append(mine)
                yield cell, (at, rows), source

    def reasons(self, index: Index) -> np.ndarray:
        """Why cells failed, at a grid of places of the axes that do not batch; "" elsewhere."""
        found = np.full(tuple(len(part) for part in index), "", dtype=object)
        for at in np.ndindex(*found.shape):
            where = tuple(int(part[i]) for part, i in zip(index, at, strict=True))
            flat = int(np.ravel_multi_index(where, tuple(self.cells.outer.values()))) if at else 0
            kept = self.stored(self.cells[self.cells.at(flat)[0]])
            if kept is not None:
                found[at] = kept.about["failure"]
        return found
