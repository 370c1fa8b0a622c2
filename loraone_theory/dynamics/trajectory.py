"""What a simulation returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.status import Outcome, RunStatus


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The records of a batch of runs.

    Args:
        steps: (T,) the recorded steps, 0 first.
        records: name -> (T, *batch), in the order asked for. NaN where undefined: alignments of
            rank-short factors, and everything from the step at which a run diverged.
        axes: one name for each batch dimension, hyper-parameters first, "seed" last.
        coordinates: axis name -> its values; beside "seed", the seeds of the trials,
            "problem_seed" has those of the instances where they are not the same.
        initial: the factors at t = 0 in the original coordinates: A (*batch, d, r) and
            B (*batch, r, k) where the method trains a pair, else those of the learned shift.
        final: the same at the last step.
        offset: what was subtracted from W in the frozen part, or None.
        scale: s in W_eff = W_f + sAB.
        status: (*batch) array of RunStatus.
        config: method, hyper-parameters and settings of the call.
    """

    steps: np.ndarray
    records: Mapping[str, Tensor]
    axes: tuple[str, ...]
    coordinates: Mapping[str, tuple[float, ...]]
    initial: Factors
    final: Factors
    offset: Factors | None
    scale: float
    status: np.ndarray
    config: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """The record `name`, shape (T, *batch)."""
        validate.choice("record", name, self.records)
        return self.records[name]

    @property
    def diverged(self) -> np.ndarray:
        """(*batch) booleans: which runs ended with non-finite factors."""
        return np.vectorize(lambda s: not s.ok, otypes=[bool])(self.status)

    def learned_shift(self) -> Factors:
        """sA_TB_T − offset: what was added to W, as Factors."""
        shift = Factors(self.scale * self.final.A, self.final.B)
        if self.offset is None:
            return shift
        return concatenate(shift, Factors(-self.offset.A, self.offset.B))

    def to_numpy(self) -> dict[str, np.ndarray]:
        """`steps` and every record as numpy arrays."""
        arrays = {name: value.cpu().numpy() for name, value in self.records.items()}
        return {"steps": self.steps, **arrays}

    def save(self, path: str | Path) -> None:
        """Write everything to one npz file, whole or not at all."""
        flat = self.status.ravel()
        arrays: dict[str, Any] = {f"record.{n}": v.cpu() for n, v in self.records.items()}
        for name, value in _named_factors(self).items():
            arrays[f"factors.{name}"] = value.detach().cpu()
        arrays["steps"] = self.steps
        arrays["status.outcome"] = np.array([s.outcome.name for s in flat])
        arrays["status.step"] = np.array([s.step for s in flat])
        arrays["status.count"] = np.array([s.count for s in flat])
        arrays["status.shape"] = np.array(self.status.shape, dtype=np.int64)
        meta = {
            "axes": self.axes,
            "coordinates": dict(self.coordinates),
            "scale": self.scale,
            "config": dict(self.config),
        }
        arrays["meta"] = np.array(json.dumps(meta))
        storage.save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read what `save` wrote.

        Raises:
            storage.DamagedFile: another kind of file, or a damaged one; pickles are never read.
        """
        arrays = storage.load_arrays(path)
        with storage.reading(path, "a saved Trajectory"):
            meta = json.loads(str(arrays["meta"]))
            parts = {
                name.removeprefix("factors."): torch.from_numpy(value)
                for name, value in arrays.items()
                if name.startswith("factors.")
            }
            status = np.empty(len(arrays["status.step"]), dtype=object)
            columns = (arrays[f"status.{name}"] for name in ("outcome", "step", "count"))
            for i, (name, step, count) in enumerate(zip(*columns, strict=True)):
                status[i] = RunStatus(Outcome[str(name)], int(step), int(count))
            return cls(
                steps=arrays["steps"],
                records={
                    name.removeprefix("record."): torch.from_numpy(value)
                    for name, value in arrays.items()
                    if name.startswith("record.")
                },
                axes=tuple(meta["axes"]),
                coordinates={name: tuple(values) for name, values in meta["coordinates"].items()},
                initial=Factors(parts["initial.A"], parts["initial.B"]),
                final=Factors(parts["final.A"], parts["final.B"]),
                offset=Factors(parts["offset.A"], parts["offset.B"])
                if "offset.A" in parts
                else None,
                scale=meta["scale"],
                status=status.reshape(tuple(arrays["status.shape"])),
                config=meta["config"],
            )


def _named_factors(trajectory: Trajectory) -> dict[str, Tensor]:
    parts = {}
    for name in ("initial", "final", "offset"):
        factors = getattr(trajectory, name)
        if factors is not None:
            parts[f"{name}.A"], parts[f"{name}.B"] = factors
    return parts
