"""A heatmap of a sweep, with the contour of a predicted boundary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import plotting
from loraone_theory.core import validate
from loraone_theory.sweeps.result import Result

Boundary = Callable[[np.ndarray, np.ndarray], Any]
# Points of a line along each axis; how much more even ratios must be than steps, beyond rounding.
LINE, ALIKE = 200, 1e-6


def heatmap(
    result: Result,
    name: str,
    *,
    x: str,
    y: str,
    at: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
) -> plotting.Figure:
    """A variable over two axes, the mean over all others but those held `at` a value.

    Args:
        result: of the sweep.
        name: a variable of numbers.
        x: an axis of numbers.
        y: another one.
        at: axis -> the value to show.
        boundary: (x values, y values), arrays of one shape -> numbers; where they change their
            sign a line is drawn.

    Raises:
        ValueError: an unknown name, axis or value, or an axis that is not of numbers.
    """
    variable = result.variables[validate.choice("variable", name, result.variables)]
    if variable.axes:
        raise ValueError(f"a heatmap shows numbers, and {name!r} is a vector; reduce it")
    if boundary is not None:
        validate.function("boundary", boundary)
    held = {} if at is None else validate.instance("at", at, Mapping, 'write {"rank": 2}')
    for axis in (x, y, *held):
        validate.choice("axis", axis, result.sizes)
    if x == y:
        raise ValueError(f"x and y must be two axes; got {x!r} twice")
    places = []
    for axis, size in result.sizes.items():
        whole = axis not in held
        places.append(np.arange(size) if whole else _place(result, axis, held[axis]))
    values = result.read(variable, tuple(places)).astype(float)
    names = list(result.sizes)
    others = tuple(i for i, axis in enumerate(names) if axis not in (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of cells without a finished run
        mean = np.nanmean(values, axis=others) if others else values
    if names.index(x) < names.index(y):
        mean = mean.T
    across, up = _numbers(result, x), _numbers(result, y)
    mean = mean[np.ix_(np.argsort(up), np.argsort(across))]
    return _draw(mean, Axis.of(across), Axis.of(up), (x, y, name), boundary)


def _place(result: Result, axis: str, given: Any) -> np.ndarray:
    labels = result.coordinates[axis][1]
    if given not in labels:
        raise ValueError(f"{axis} must be one of {labels}; got {given!r}")
    return np.array([labels.index(given)])


def _numbers(result: Result, axis: str) -> np.ndarray:
    labels = result.coordinates[axis][1]
    if not all(isinstance(label, (int, float)) for label in labels):
        raise ValueError(f"a heatmap has axes of numbers, and {axis!r} holds {labels[0]!r}")
    return np.array(labels, dtype=float)


class Axis(NamedTuple):
    """The values of an axis in order, and whether equal distances on it are equal ratios.

    >>> Axis.of(np.array([4.0, 1.0, 2.0])).log, Axis.of(np.array([1.0, 2.0, 3.0])).log
    (True, False)
    """

    values: np.ndarray
    log: bool

    @classmethod
    def of(cls, values: np.ndarray) -> Axis:
        """Logarithmic where the ratios of the values are more alike than their steps."""
        found = np.sort(values)
        if found[0] <= 0:
            return cls(found, False)
        return cls(found, _unevenness(np.log(found)) < _unevenness(found) - ALIKE)

    def edges(self) -> np.ndarray:
        """The borders of the cells around the values."""
        if self.log:
            return np.exp(plotting.edges(np.log(self.values)))
        return plotting.edges(self.values)

    def finer(self) -> np.ndarray:
        """Places from the first value to the last, for a line."""
        between = np.geomspace if self.log else np.linspace
        return between(self.values[0], self.values[-1], LINE)


def _unevenness(values: np.ndarray) -> float:
    """Spread of the steps over their mean, 0 where there are none to compare."""
    steps = np.diff(values)
    return float(steps.std() / steps.mean()) if len(steps) > 1 else 0.0


def _draw(
    values: np.ndarray,
    x: Axis,
    y: Axis,
    names: tuple[str, str, str],
    boundary: Boundary | None,
) -> plotting.Figure:
    with plotting.style():
        figure, axes = plotting.figure(height=3.6)
        ax = axes[0, 0]
        ax.grid(visible=False)
        shown = ax.pcolormesh(x.edges(), y.edges(), values, cmap="viridis", rasterized=True)
        if boundary is not None:
            X, Y = np.meshgrid(x.finer(), y.finer())
            line = np.broadcast_to(np.asarray(boundary(X, Y), dtype=float), X.shape)
            ax.contour(X, Y, line, levels=[0.0], colors="white", linewidths=1.3)
        scales = ["log" if axis.log else "linear" for axis in (x, y)]
        ax.set(xlabel=names[0], ylabel=names[1], xscale=scales[0], yscale=scales[1])
        figure.colorbar(shown, label=names[2])
    return figure
