"""A sweep as a user holds it: what is asked for, and the folder that it is computed into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import plotting, storage
from loraone_theory.core import validate
from loraone_theory.sweeps import cost, dataset, picture
from loraone_theory.sweeps import delete as deleting
from loraone_theory.sweeps import run as running
from loraone_theory.sweeps.cells import Cells
from loraone_theory.sweeps.result import Result
from loraone_theory.sweeps.run import Done, Report, Status
from loraone_theory.sweeps.specification import (
    RUNS_PER_CELL,
    Specification,
    read,
    specification,
)


class Forecast(NamedTuple):
    """What a sweep is expected to take, on one core.

    Args:
        cells: how many.
        runs: in all of them.
        seconds: of all, by the cost model.
        memory: bytes of the largest cell.
    """

    cells: int
    runs: int
    seconds: float
    memory: int


class Sweep:
    """Runs over axes of problems, methods and their settings, kept in a folder.

    >>> import tempfile
    >>> fixed = {"sampler": "sample_linear", "d": 8, "k": 6, "true_rank": 2, "samples": 60,
    ...          "method": "lora-one", "learning_rate": 0.2, "steps": 60}
    >>> axes = {"rank": [1, 2], "seed": range(3)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sweep = Sweep(folder, fixed=fixed, axes=axes, measure={"loss": "final"})
    ...     sweep.run()
    ...     sweep.array("loss").shape, bool((sweep.array("loss")[1] < 1e-6).all())
    Done(computed=2, found=0, failed=0, lost=())
    ((2, 3), True)

    Args:
        folder: where the cells are kept; one that is absent is made by `run`.
        fixed: name -> value. Names are the arguments of the sampler and of `simulate`, and the
            hyper-parameters of the methods; "sampler" and "method" are among them; "sample_ratio"
            stands for samples over d, or measurements over r*(d + k − r*). A learning rate may be
            a number, a schedule or "best".
        axes: name -> values, a dimension each. "seed" is one of them.
        together: name -> values, all lists of one length: one dimension, "point".
        measure: name -> "final" or another reduction of the record of that name, or a table with
            record, reduce, level, against and factor, or a `Measure`.
        name: of the sweep.
        runs_per_cell: trials that are computed together at most.

    Raises:
        TypeError, ValueError: an unknown name or value, or one that is missing; nothing is written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        fixed: Mapping[str, Any],
        axes: Mapping[str, Any] | None = None,
        together: Mapping[str, Any] | None = None,
        measure: Mapping[str, Any] | None = None,
        name: str = "sweep",
        runs_per_cell: int = RUNS_PER_CELL,
    ) -> None:
        self.folder = storage.as_path(folder)
        self.spec = specification(
            fixed=fixed,
            axes=axes,
            together=together,
            measure=measure,
            name=name,
            runs_per_cell=runs_per_cell,
        )

    @classmethod
    def of_file(cls, path: str | Path, folder: str | Path | None = None) -> Sweep:
        """The sweep of a TOML file; its folder is by default the file's path without the suffix."""
        return cls.of(read(path), Path(path).with_suffix("") if folder is None else folder)

    @classmethod
    def of(cls, spec: Specification, folder: str | Path) -> Sweep:
        """A sweep from its specification."""
        made = cls.__new__(cls)
        made.spec = validate.instance("spec", spec, Specification, "write lt.Sweep(folder, ...)")
        made.folder = storage.as_path(folder)
        return made

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in self.spec.sizes.items())
        return f"Sweep({self.spec.name!r}, {sizes}, in {self.folder})"

    def run(
        self,
        *,
        workers: int = 1,
        scheduler: str | None = None,
        shard: str | None = None,
        report: Report | None = None,
    ) -> Done:
        """Compute what is not finished; what was computed before is not computed again.

        Args:
            workers: processes on this machine. More than one need the extra "sweep", and a script
                that asks for them `if __name__ == "__main__":` around it.
            scheduler: the address of a running Dask cluster in their place.
            shard: "3/16", this one's part of the cells; all parts share the folder.
            report: called with how many cells are done and how many there are.

        Raises:
            ValueError: a folder of another sweep, or a bad argument; nothing is written.
            engines.Lost: no scheduler answers, or the cluster was lost.
            OSError: a full disk; what was finished is kept.
        """
        return running.carry_out(
            self.spec,
            self.folder,
            workers=workers,
            scheduler=scheduler,
            shard=shard,
            report=report,
        )

    def forecast(self) -> Forecast:
        """What it is expected to take; nothing is computed or written."""
        cells = Cells(self.spec)
        records = len(self.spec.measures)
        largest = max(cost.memory(c.settings, c.runs, len(c.seeds), records) for c in cells)
        return Forecast(len(cells), self.spec.runs, float(cost.of_all(cells).sum()), largest)

    def status(self) -> Status:
        """How far it is; every file is read and checked."""
        return running.status(self.spec, self.folder)

    def delete(self, filters: Sequence[str]) -> int:
        """Remove finished cells: "all", "failed", "stale", or such as "rank=2,3"; how many."""
        return deleting.delete(self.spec, self.folder, filters)

    def array(self, name: str) -> np.ndarray:
        """A variable over all axes, NaN where it is missing."""
        result = Result(self.folder)
        return result.read(result.variables[validate.choice("name", name, result.variables)])

    def dataset(self) -> Any:
        """The result as an xarray.Dataset, read from the folder when it is asked for."""
        return dataset.dataset(Result(self.folder))

    def to_csv(self, path: str | Path) -> None:
        """One row for each run: coordinates, numbers, outcome, and why it is missing."""
        dataset.to_csv(Result(self.folder), path)

    def to_pandas(self) -> Any:
        """The same table as a pandas.DataFrame."""
        return dataset.to_pandas(Result(self.folder))

    def heatmap(
        self,
        name: str,
        *,
        x: str,
        y: str,
        at: Mapping[str, Any] | None = None,
        boundary: picture.Boundary | None = None,
    ) -> plotting.Figure:
        """A variable over two axes, the mean over the others; see `sweeps.picture.heatmap`."""
        return picture.heatmap(Result(self.folder), name, x=x, y=y, at=at, boundary=boundary)


def sweep(
    folder: str | Path,
    *,
    fixed: Mapping[str, Any],
    axes: Mapping[str, Any] | None = None,
    together: Mapping[str, Any] | None = None,
    measure: Mapping[str, Any] | None = None,
    name: str = "sweep",
    runs_per_cell: int = RUNS_PER_CELL,
    workers: int = 1,
    scheduler: str | None = None,
    shard: str | None = None,
    report: Report | None = None,
) -> Any:
    """Run a sweep into a folder and open its result, an xarray.Dataset.

    Arguments are those of `Sweep` and `Sweep.run`. Without xarray, use these.

    Raises:
        MissingExtra: xarray is not installed; nothing is computed.
        TypeError, ValueError: as `Sweep` and `Sweep.run`.
    """
    made = Sweep(
        folder,
        fixed=fixed,
        axes=axes,
        together=together,
        measure=measure,
        name=name,
        runs_per_cell=runs_per_cell,
    )
    dataset.optional("xarray")
    made.run(workers=workers, scheduler=scheduler, shard=shard, report=report)
    return made.dataset()


def open_sweep(folder: str | Path) -> Any:
    """The result of a sweep as an xarray.Dataset, whose values are read when they are asked for.

    Dimensions are the axes, those that batch last; runs that are not finished are NaN.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        MissingExtra: xarray is not installed.
    """
    return dataset.dataset(Result(folder))
