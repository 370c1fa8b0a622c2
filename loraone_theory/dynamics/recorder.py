"""Records along a run: snapshots are gathered and then measured in one batched call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.factors import Params
from loraone_theory.core.plain import plain
from loraone_theory.core.threads import side_by_side, threads_for
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.view import View

# Snapshots are gathered up to this size and then measured in one batched call.
CHUNK_BYTES = 1 << 22
# From this many snapshots on, threads share those instead of the work on each.
MANY = 8
# Their residuals, which many records need, may take this much.
RESIDUAL_BYTES = 1 << 25


class Recorder:
    """Records at given steps, in order.

    Args:
        plan: of the runs.
        records: what to measure, by name.
        at: the steps, ascending.
        threads: how many may measure.
        pool: for all of them but one.
    """

    def __init__(
        self,
        plan: Plan,
        records: Mapping[str, Record],
        at: np.ndarray,
        threads: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.plan, self.records, self.at = plan, records, at
        self._threads, self._pool = threads, pool
        self.wanted = set(at.tolist()) if records else set()
        self.store = {name: self._empty(row) for name, row in records.items()}
        self.measured = self._waiting = 0
        self._snapshots = self._room() if records else ()
        self._most = len(self._snapshots[0]) if records else 0

    def _empty(self, row: Record) -> Tensor:
        """Space for the values; what is not built in is tried out on the start first."""
        shape: tuple[int, ...] = (len(self.at), *self.plan.batch.shape)
        if row.axis is not None or RECORDS.get(row.name) is not row:
            start = tuple(t[None].clone() for t in self.plan.start.trainable)
            view = self.plan.view(start, lift=not row.invariant)
            shape = (len(self.at), *self._measured(row, view, 1).shape[1:])
        return self.plan.problem.like.new_full(shape, math.nan)

    def _measured(self, row: Record, view: View, times: int) -> Tensor:
        """The record's values, which are real and one for each run, of an untouched view."""
        value = row.measure(view)
        wanted = (times, *self.plan.batch.shape)
        if not isinstance(value, Tensor):
            raise TypeError(f"record {row.name!r} must return a tensor; got {type(value).__name__}")
        if value.is_complex():
            raise TypeError(
                f"record {row.name!r} must have real values; got {plain(value.dtype)}; record its "
                "real and imaginary parts, or its size"
            )
        ok = value.ndim == len(wanted) + (row.axis is not None)
        if not ok or value.shape[: len(wanted)] != wanted:
            more = " and one more axis" if row.axis is not None else ""
            raise ValueError(
                f"record {row.name!r} must have shape (times, *batch) = {wanted}{more}; "
                f"got {tuple(value.shape)}; reduce over the last two dimensions, and give axis= "
                "for a vector"
            )
        if changed := view.overwritten():
            raise TypeError(
                f"record {row.name!r} must not write to what all records see; got "
                f"view.{changed[0]} changed in place; make a new tensor, "
                "view.residual.square() for example"
            )
        return value

    def _room(self) -> Params:
        """Space for the snapshots that are measured together, (count, *batch, ...) each."""
        params, plan = self.plan.start.trainable, self.plan
        size = sum(t.numel() for t in params) * plan.problem.like.element_size()
        lift = any(not row.invariant for row in self.records.values())
        where = plan.whole if lift else plan.problem
        residual = where.d * where.k * plan.batch.shape.numel() * plan.problem.like.element_size()
        count = max(1, min(CHUNK_BYTES // size, RESIDUAL_BYTES // residual, len(self.at)))
        return tuple(t.new_empty(count, *t.mT.shape).mT for t in params)

    def keep(self, t: int, params: Params) -> None:
        """Take a snapshot if t is one of the steps."""
        if t in self.wanted:
            for space, value in zip(self._snapshots, params, strict=True):
                space[self._waiting].copy_(value)
            self._waiting += 1
            if self._waiting == self._most:
                self.measure()

    def measure(self) -> None:
        """Every record of the snapshots, in one batched call for each thread."""
        if not self._waiting:
            return
        entries = self._snapshots[0][: self._waiting].numel()
        device = self.plan.problem.like.device
        with threads_for(entries, device, self._threads):
            if torch.get_num_threads() > 1 and device.type == "cpu" and self._waiting >= MANY:
                side_by_side(self._pool, self._measure_rows, self._waiting, self._threads)
            else:
                self._measure_rows(slice(0, self._waiting))
        self.measured, self._waiting = self.measured + self._waiting, 0

    def _measure_rows(self, rows: slice) -> None:
        stacked = tuple(space[rows] for space in self._snapshots)
        views: dict[bool, View] = {}
        for name, row in self.records.items():
            lift = not row.invariant and self.plan.reduction is not None
            if lift not in views:
                views[lift] = self.plan.view(stacked, lift=lift)
            target = self.store[name][self.measured + rows.start : self.measured + rows.stop]
            value = self._measured(row, views[lift], rows.stop - rows.start)
            target.copy_(value)
