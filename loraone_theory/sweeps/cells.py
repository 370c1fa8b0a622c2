"""The cells of a sweep: which runs are computed together, and what names them.

A cell is one choice of every axis that does not batch, with all values of those that do and a piece
of the seeds. Which runs share a cell depends on the configuration alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from loraone_theory.methods import METHODS, Method
from loraone_theory.sweeps import keywords, size
from loraone_theory.sweeps.own import written
from loraone_theory.sweeps.specification import POINT, Specification
from loraone_theory.sweeps.version import numerics_version

SEED = "seed"
# Instances of one cell take no more memory than this, unless a single one does.
MOST_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Cell:
    """Runs that are computed together.

    Args:
        index: of the cell, in the order of the result.
        place: dimension -> where its runs stand, an integer or a slice.
        settings: name -> value; lists along the axes of the batch.
        seeds: of its instances.
        batched: the axes of the batch but for the seeds, in order.
        measures: what is kept.
        seeks: whether a learning rate is to be found.
        version: of the numerics.
    """

    index: int
    place: Mapping[str, int | slice]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    batched: tuple[str, ...]
    measures: Mapping[str, Any]
    seeks: bool
    version: str

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return math.prod((*(len(self.settings[name]) for name in self.batched), len(self.seeds)))

    @property
    def engine(self) -> str:
        """Which loop its runs take."""
        return str(self.settings.get("engine", "torch"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """Everything that its numbers depend on, as JSON."""
        return {
            "settings": {name: written(name, value) for name, value in self.settings.items()},
            "seeds": list(self.seeds),
            "measure": {name: each.described() for name, each in self.measures.items()},
            "numerics": self.version,
        }

    @cached_property
    def key(self) -> str:
        """Its name: a hash of `config`."""
        text = json.dumps(self.config, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def problem(self) -> dict[str, Any]:
        """The arguments of its sampler but the seeds."""
        names = keywords.taken(self.settings["sampler"]).names
        found = {name: self.settings[name] for name in names if name in self.settings}
        return found | size.counted(self.settings, names)

    def method(self) -> Method:
        """The method with its hyper-parameters."""
        given = self.settings["method"]
        if isinstance(given, Method):
            return given
        taken = keywords.own_hyper(METHODS[given["name"]])
        other = {*keywords.RUN, *keywords.taken(self.settings["sampler"]).names}
        hyper = {n: self.settings[n] for n in taken if n in self.settings and n not in other}
        return METHODS[given["name"]](**hyper, **{n: v for n, v in given.items() if n != "name"})


class Cells:
    """The cells of a specification, made one at a time.

    >>> from loraone_theory.sweeps.specification import specification
    >>> fixed = {"sampler": "sample_linear", "d": 8, "k": 6, "true_rank": 2, "samples": 60,
    ...          "method": "lora-one", "learning_rate": 0.2, "steps": 5}
    >>> cells = Cells(specification(fixed=fixed, axes={"rank": [1, 2], "seed": range(200)}))
    >>> len(cells), [cell.runs for cell in cells]
    (4, [128, 72, 128, 72])
    """

    def __init__(self, spec: Specification, versions: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self._versions = versions  # of the numerics by engine; None: those of here
        self.outer = {n: count for n, count in spec.sizes.items() if n not in spec.batched}
        self.seeds = tuple(spec.axes.get(SEED, (spec.fixed.get(SEED, 0),)))
        self._inner = tuple(name for name in spec.batched if name != SEED)
        self._pieces = self._piece_sizes()
        counts = -(-len(self.seeds) // self._pieces)
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[Cell]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Cell:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} cells; got {index}")
        flat = int(np.searchsorted(self._ends, index, side="right"))
        first = index - (int(self._ends[flat - 1]) if flat else 0)
        piece = int(self._pieces[flat])
        span = slice(first * piece, min((first + 1) * piece, len(self.seeds)))
        place: dict[str, int | slice] = dict(self._place(flat))
        for name in self._inner:
            place[name] = slice(0, len(self.spec.axes[name]))
        if SEED in self.spec.axes:
            place[SEED] = span
        settings = self._settings(flat)
        for name in self._inner:
            settings[name] = list(self.spec.axes[name])
        known, engine = self._versions, settings.get("engine", "torch")
        return Cell(
            index=index,
            place=place,
            settings=settings,
            seeds=self.seeds[span],
            batched=self._inner,
            measures=self.spec.measures,
            seeks=self.spec.seeks,
            version=numerics_version(engine) if known is None else known[engine],
        )

    def at(self, flat: int) -> range:
        """The cells of one choice of the axes that do not batch, by their number in order."""
        first = int(self._ends[flat - 1]) if flat else 0
        return range(first, int(self._ends[flat]))

    def piece(self, flat: int) -> int:
        """How many seeds a cell there has, but for the last one."""
        return int(self._pieces[flat])

    def _place(self, flat: int) -> dict[str, int]:
        where = np.unravel_index(flat, tuple(self.outer.values()))
        return {name: int(i) for name, i in zip(self.outer, where, strict=True)}

    def _settings(self, flat: int) -> dict[str, Any]:
        found = {name: value for name, value in self.spec.fixed.items() if name != SEED}
        for name, i in self._place(flat).items():
            if name == POINT:
                found |= {key: column[i] for key, column in self.spec.together.items()}
            else:
                found[name] = self.spec.axes[name][i]
        return found

    def _piece_sizes(self) -> np.ndarray:
        """How many seeds go into a cell, for every choice of the other axes."""
        combined = math.prod(len(self.spec.axes[name]) for name in self._inner)
        most = max(1, self.spec.runs_per_cell // combined)
        varying = size.NAMES & {*self.spec.axes, *self.spec.together}
        total = math.prod(self.outer.values())
        known: dict[Any, int] = {}
        found = np.empty(total, dtype=np.int64)
        for flat in range(total) if varying else (0,):
            settings = self._settings(flat)
            key = tuple(repr(settings.get(name)) for name in size.NAMES)
            if key not in known:
                room = MOST_BYTES // size.instance_bytes(settings)
                known[key] = max(1, min(most, room))
            found[flat] = known[key]
        return found if varying else np.full(total, found[0])


__all__ = ["MOST_BYTES", "SEED", "Cell", "Cells"]
