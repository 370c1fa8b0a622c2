"""Trajectories on disk: one npz of plain arrays, with what is needed to go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import storage
from loraone_theory.core.factors import Factors
from loraone_theory.core.status import Outcome, RunStatus
from loraone_theory.dynamics.continuation import Resume, Stored
from loraone_theory.dynamics.leaves import Leaf, leaves_of
from loraone_theory.dynamics.records import RECORDS

if TYPE_CHECKING:
    from loraone_theory.dynamics.trajectory import Trajectory

FACTORS = ("initial", "final", "offset", "kept", "given")
STATUS = ("step", "count", "factor")


def save(run: Trajectory, path: str | Path) -> None:
    """Write everything to one npz file, whole or not at all."""
    arrays: dict[str, Any] = {f"record.{n}": v.cpu() for n, v in run.records.items()}
    stored = _stored(run)
    given = None if stored is None else stored.initial
    held = (run.initial, run.final, run.offset, run.factors, given)
    for name, factors in zip(FACTORS, held, strict=True):
        if factors is not None:
            arrays[f"factors.{name}.A"], arrays[f"factors.{name}.B"] = (
                value.detach().cpu() for value in factors
            )
    arrays["steps"] = run.steps
    flat = run.status.ravel()
    arrays["status.outcome"] = np.array([s.outcome.name for s in flat])
    for name in STATUS:
        arrays[f"status.{name}"] = np.array([getattr(s, name) for s in flat])
    arrays["status.shape"] = np.array(run.status.shape, dtype=np.int64)
    arrays["factor_steps"] = np.array(run.factor_steps, dtype=np.int64)
    if run.reached is not None:
        arrays["reached"] = run.reached
    meta = {
        "axes": run.axes,
        "coordinates": dict(run.coordinates),
        "scale": run.scale,
        "config": dict(run.config),
        "record_axes": dict(run.record_axes),
        "reasons": dict(run.reasons),
        "units": dict(run.units),
        "docs": dict(run.docs),
        "resume": None if stored is None else _pack(stored, arrays),
    }
    arrays["meta"] = np.array(json.dumps(meta))
    storage.save_arrays(path, arrays)


def _stored(run: Trajectory) -> Stored | None:
    plan, point = run.resume.plan, run.resume.point
    if plan is None or point is None:
        return run.resume.stored
    return Stored(
        config=dict(run.config),
        initial=plan.settings.initial,
        step=point.step,
        params=tuple(point.params),
        leaves=tuple(leaves_of(point.state)),
        diverged_at=point.diverged_at,
        losses=point.losses,
    )


def _pack(stored: Stored, arrays: dict[str, Any]) -> dict[str, Any]:
    """Tensors to arrays; numbers and memory layouts, on which the last bits hang, to JSON."""

    def put(name: str, leaf: Leaf) -> Any:
        if not isinstance(leaf, Tensor):
            return {"number": leaf}
        arrays[name] = leaf.detach().cpu()
        return {"transposed": _transposed(leaf)}

    arrays["resume.diverged_at"] = stored.diverged_at
    arrays["resume.losses"] = stored.losses
    return {
        "step": stored.step,
        "params": [put(f"resume.param.{i}", x) for i, x in enumerate(stored.params)],
        "leaves": [put(f"resume.leaf.{i}", x) for i, x in enumerate(stored.leaves)],
    }


def _transposed(M: Tensor) -> bool:
    return M.ndim >= 2 and not M.is_contiguous() and M.mT.is_contiguous()


def load(path: str | Path) -> dict[str, Any]:
    """The fields of a Trajectory from what `save` wrote, or a former version of it.

    Raises:
        storage.DamagedFile: another kind of file, or a damaged one; pickles are never read.
    """
    arrays = storage.load_arrays(path)
    with storage.reading(path, "a saved Trajectory"):
        meta = json.loads(str(arrays["meta"]))
        return _fields(arrays, meta)


def _fields(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, Any]:
    held = {name: _factors(arrays, name) for name in FACTORS}
    resume = None if meta.get("resume") is None else _unpack(arrays, meta, held["given"])
    records = {
        name.removeprefix("record."): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith("record.")
    }
    # Files of a version that kept neither held few records of one's own.
    known = {name: RECORDS[name] for name in records if name in RECORDS}
    units = dict.fromkeys(records, "1") | {name: row.unit for name, row in known.items()}
    return {
        "steps": arrays["steps"],
        "records": records,
        "units": meta.get("units", units),
        "docs": meta.get("docs", {name: row.doc for name, row in known.items()}),
        "axes": tuple(meta["axes"]),
        "coordinates": {name: tuple(values) for name, values in meta["coordinates"].items()},
        "initial": held["initial"] or _missing("factors.initial.A"),
        "final": held["final"] or _missing("factors.final.A"),
        "offset": held["offset"],
        "scale": meta["scale"],
        "status": _statuses(arrays),
        "record_axes": meta.get("record_axes", {}),
        "reasons": meta.get("reasons", {}),
        "factors": held["kept"],
        "factor_steps": tuple(arrays.get("factor_steps", np.empty(0)).tolist()),
        "reached": torch.from_numpy(arrays["reached"]) if "reached" in arrays else None,
        "resume": Resume(stored=resume, config=meta["config"]),
    }


def _missing(name: str) -> Any:
    raise KeyError(name)


def _factors(arrays: dict[str, np.ndarray], name: str) -> Factors | None:
    if f"factors.{name}.A" not in arrays:
        return None
    return Factors(*(torch.from_numpy(arrays[f"factors.{name}.{part}"]) for part in "AB"))


def _statuses(arrays: dict[str, np.ndarray]) -> np.ndarray:
    names = arrays["status.outcome"]
    status = np.empty(len(names), dtype=object)
    factors = arrays.get("status.factor", np.zeros(len(names)))
    columns = (names, arrays["status.step"], arrays["status.count"], factors)
    for i, (name, step, count, factor) in enumerate(zip(*columns, strict=True)):
        status[i] = RunStatus(Outcome[str(name)], int(step), int(count), float(factor))
    return status.reshape(tuple(arrays["status.shape"]))


def _no_losses(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """For files of a version that kept none, or not that of the start."""
    like = arrays["factors.final.A"].dtype
    return np.empty((0, *arrays["resume.diverged_at"].shape), dtype=like)


def _unpack(arrays: dict[str, np.ndarray], meta: dict[str, Any], initial: Factors | None) -> Stored:
    about = meta["resume"]

    def get(name: str, kind: dict[str, Any]) -> Leaf:
        if "number" in kind:
            return kind["number"]
        value = torch.from_numpy(arrays[name])
        return value.mT.contiguous().mT if kind["transposed"] else value

    params = [get(f"resume.param.{i}", kind) for i, kind in enumerate(about["params"])]
    return Stored(
        config=meta["config"],
        initial=initial,
        step=about["step"],
        params=tuple(value for value in params if isinstance(value, Tensor)),
        leaves=tuple(get(f"resume.leaf.{i}", kind) for i, kind in enumerate(about["leaves"])),
        diverged_at=torch.from_numpy(arrays["resume.diverged_at"]),
        losses=torch.from_numpy(arrays.get("resume.losses", _no_losses(arrays))),
    )
