"""A sweep carried out: cells handed out, written as they come, gone on with later."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import engines, storage
from loraone_theory.core import validate
from loraone_theory.engines import Lost
from loraone_theory.sweeps import cost
from loraone_theory.sweeps.cells import Cell, Cells
from loraone_theory.sweeps.compute import Computed, compute
from loraone_theory.sweeps.manifest import described
from loraone_theory.sweeps.specification import Specification
from loraone_theory.sweeps.store import Locks, Store, locks_of

# Told how many cells are done, and how many there are to do.
Report = Callable[[int, int], object]


class Done(NamedTuple):
    """What a run of a sweep did.

    Args:
        computed: cells that it finished.
        found: those that were finished before, or by another run meanwhile.
        failed: those among all of them whose runs could not be made, with a reason.
        lost: those that the machine or the cluster failed, with the reason; a later run takes them.
    """

    computed: int
    found: int
    failed: int
    lost: tuple[str, ...]


def shard_of(given: Any) -> tuple[int, int]:
    """(which, of how many) from "3/16"; the first one is 1.

    >>> shard_of("3/16")
    (3, 16)

    Raises:
        TypeError, ValueError: not of this form, or a number out of range.
    """
    if given is None:
        return 1, 1
    text = validate.instance("shard", given, str, 'write "3/16"')
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f'shard must be such as "3/16", from "1/16" to "16/16"; got {text!r}')
    return int(found[1]), int(found[2])


def carry_out(
    spec: Specification,
    folder: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    shard: str | None = None,
    report: Report | None = None,
) -> Done:
    """Compute every cell of a sweep that is not finished, and write each into the folder.

    Args:
        spec: what to compute.
        folder: of this sweep, or one that is to be made.
        workers: processes of this machine.
        scheduler: the address of a running cluster, in their place.
        shard: "3/16", this one's part of the cells.
        report: called now and then.

    Raises:
        TypeError, ValueError: a bad argument, or a folder of another sweep; nothing is written.
        engines.Lost: no scheduler answers (nothing is written), or it was lost.
        OSError: a full disk; what was finished is kept.
    """
    where = engines.place(workers, scheduler)
    which, of = shard_of(shard)
    if report is not None:
        validate.function("report", report)
    store, manifest = Store(folder), described(spec)
    store.refuse_other(manifest)
    cells = Cells(spec)
    mine = cost.order(cost.of_all(cells))[which - 1 :: of]
    with engines.opened(where) as client:
        store.announce(manifest)
        with locks_of(store.folder) as locks:
            return _Work(store, locks, cells, mine, report or _silent).all(client)


def _silent(done: int, total: int) -> None:
    pass


class _Work:
    """The cells of one run of a sweep on their way."""

    def __init__(
        self, store: Store, locks: Locks, cells: Cells, mine: np.ndarray, report: Report
    ) -> None:
        self.store, self.locks, self.cells, self.mine = store, locks, cells, mine
        self.report = report
        self.computed = self.found = self.failed = 0
        self.lost: list[str] = []
        self.others: list[int] = []  # cells that another run is at work on

    def all(self, client: Any) -> Done:
        """Compute what is left, then see to what others were at work on."""
        for cell, answer in engines.spread(compute, self._open(self.mine), client):
            self._keep(cell, answer)
        for number in self.others:  # one by one: who waits for a lock holds none
            for cell, answer in engines.spread(compute, self._open([number], wait=True), client):
                self._keep(cell, answer)
        return Done(self.computed, self.found, self.failed, tuple(self.lost))

    def _open(self, numbers: Sequence[int] | np.ndarray, *, wait: bool = False) -> Iterator[Cell]:
        """Those that are not finished, each locked."""
        for number in numbers:
            cell = self.cells[int(number)]
            if self._is_finished(cell):
                self._found(cell)
            elif not self.locks.take(cell.key, wait=wait):
                self.others.append(int(number))
            elif self._is_finished(cell):  # meanwhile, by another run
                self.locks.give_back(cell.key)
                self._found(cell)
            else:
                yield cell

    def _is_finished(self, cell: Cell) -> bool:
        try:
            return self.store.whole(cell.key)
        except storage.DamagedFile as error:
            warnings.warn(f"{error}: it is computed again", stacklevel=2)
            self.store.delete(cell.key)
            return False

    def _found(self, cell: Cell) -> None:
        self.found += 1
        self._tell()

    def _tell(self) -> None:
        self.report(self.computed + self.found + len(self.lost), len(self.mine))

    def _keep(self, cell: Cell, answer: Computed | Lost) -> None:
        if isinstance(answer, Lost):
            self.lost.append(str(answer))
        elif not answer.finished:
            self.lost.append(answer.failure)
        elif answer.version != cell.version:
            raise Lost(
                f"the workers compute with version {answer.version} of the numerics, and this is "
                f"{cell.version}; install the same on both"
            )
        else:
            about = {"config": cell.config, "failure": answer.failure, "seconds": answer.seconds}
            self.store.write(cell.key, answer.arrays, about)
            self.computed += 1
            self.failed += bool(answer.failure)
        self.locks.give_back(cell.key)
        self._tell()


class Status(NamedTuple):
    """How far a sweep is.

    Args:
        cells: how many it has.
        done: finished ones, the failed included.
        failed: those without numbers.
        left: the others.
        stale: files of cells that the sweep no longer has.
        damaged: files whose checksum is wrong; they count as left.
        reasons: why cells failed -> how many.
        expected: seconds that the rest takes, by the cost model and the cells that are done.
        measured: seconds that the finished cells took.
    """

    cells: int
    done: int
    failed: int
    left: int
    stale: int
    damaged: int
    reasons: Mapping[str, int]
    expected: float
    measured: float


def status(spec: Specification, folder: str | Path) -> Status:
    """How far the sweep in a folder is; every file is read and checked.

    Raises:
        ValueError: a folder of another sweep.
    """
    store, cells = Store(folder), Cells(spec)
    store.refuse_other(described(spec))
    done = damaged = 0
    reasons: dict[str, int] = {}
    pairs: list[tuple[float, float]] = []
    open_seconds = measured = 0.0
    known = set()
    for cell in cells:
        known.add(cell.key)
        about = None
        try:
            about = store.read(cell.key).about if store.has(cell.key) else None
        except storage.DamagedFile:
            damaged += 1
        if about is None:
            open_seconds += cost.of(cell)
            continue
        done += 1
        measured += about["seconds"]
        if about["failure"]:
            reasons[about["failure"]] = reasons.get(about["failure"], 0) + 1
        else:
            pairs.append((cost.of(cell), about["seconds"]))
    stale = sum(key not in known for key in store)
    return Status(
        cells=len(cells),
        done=done,
        failed=sum(reasons.values()),
        left=len(cells) - done,
        stale=stale,
        damaged=damaged,
        reasons=reasons,
        expected=open_seconds * cost.speed(pairs),
        measured=measured,
    )
