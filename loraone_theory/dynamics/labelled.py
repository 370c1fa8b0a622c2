"""Records with their labels: an xarray.Dataset, or a long table of pandas."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from loraone_theory.core.extras import extra

if TYPE_CHECKING:
    from loraone_theory.dynamics.trajectory import Trajectory


def optional(name: str) -> Any:
    """A library of the extra "tables".

    Raises:
        MissingExtra: it is not installed; with how to install it.
    """
    with extra("tables", "use run.to_numpy()"):
        return importlib.import_module(name)


def dataset(run: Trajectory) -> Any:
    """An xarray.Dataset; see `Trajectory.to_xarray`."""
    xarray = optional("xarray")
    coords: dict[str, Any] = {"step": ("step", run.steps)}
    for name, values in run.coordinates.items():
        coords[name] = (_axis(name), np.array(values))
    variables = {}
    for name, value in run.to_numpy().items():
        if name == "steps":
            continue
        trailing = _trailing(run, name, value)
        attrs = {"units": run.units[name]}
        if run.docs.get(name):
            attrs["long_name"] = run.docs[name]
        if name in run.reasons:
            attrs["missing"] = run.reasons[name]
        variables[name] = (("step", *run.axes, *trailing), value, attrs)
    config = json.dumps(dict(run.config))
    return xarray.Dataset(variables, coords, {"config": config})


def table(run: Trajectory) -> Any:
    """A pandas.DataFrame; see `Trajectory.to_pandas`."""
    pandas = optional("pandas")
    parts = []
    for name, value in run.to_numpy().items():
        if name == "steps":
            continue
        places = np.indices(value.shape).reshape(value.ndim, -1)
        columns: dict[str, Any] = {"step": run.steps[places[0]]}
        for label, values in run.coordinates.items():
            columns[label] = np.array(values)[places[1 + run.axes.index(_axis(label))]]
        columns["record"] = name
        vector = value.ndim > 1 + len(run.axes)
        columns["index"] = places[-1] if vector else np.full(value.size, -1)
        columns["value"] = value.ravel()
        parts.append(pandas.DataFrame(columns))
    if not parts:
        return pandas.DataFrame(columns=["step", *run.coordinates, "record", "index", "value"])
    return pandas.concat(parts, ignore_index=True)


def _axis(coordinate: str) -> str:
    return "seed" if coordinate == "problem_seed" else coordinate


def _trailing(run: Trajectory, name: str, value: np.ndarray) -> tuple[str, ...]:
    """The name of a vector's axis, told apart from other dimensions and from other lengths."""
    if value.ndim == 1 + len(run.axes):
        return ()
    axis = run.record_axes[name]
    lengths = {
        run.records[other].shape[-1] for other, own in run.record_axes.items() if own == axis
    }
    free = axis not in ("step", *run.coordinates, *run.records)
    return (axis,) if len(lengths) == 1 and free else (f"{name}_{axis}",)
