"""Experiment scripts in tests: one by its name, what its smallest size writes, and a small one."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tolerance import rounding

from loraone_theory import experiment, storage

FOLDER = Path(__file__).resolve().parent.parent / "experiments"

# An experiment that takes no time.
PARABOLA = '''
"""A parabola."""
from dataclasses import dataclass

import numpy as np

from loraone_theory import experiment, plotting

# One product of small numbers.
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Points."""

    points: tuple[int, ...] = (1, 2, 3)
    """Where."""


SMOKE = Config(points=(1, 2))


def run(config, progress):
    progress(1.0)
    return {"y": np.array(config.points) ** 2.0}


def plot(data, config):
    figure, axes = plotting.figure(height=2)
    axes[0, 0].plot(config.points, data["y"])
    return {"fig_good": figure}
'''
# The same without a picture.
UNDRAWN = PARABOLA.partition("    figure, axes")[0] + "    return {}\n"


def loaded(name: str) -> experiment.Experiment:
    return experiment.load(FOLDER / f"{name}.py")


def part_of(name: str, part: str) -> Any:
    """A function or constant of a script."""
    return getattr(sys.modules[loaded(name).run.__module__], part)


def assert_smoke_writes_its_files(name: str, out: Path) -> None:
    """A picture in both forms and the data, with progress that rises to 1."""
    script = loaded(name)
    shares: list[float] = []
    drawn = experiment.produce(script, script.smoke, out, shares.append).figures
    assert {path.name for path in drawn} == {f"{name}.png", f"{name}.pdf"}
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, rel=rounding(len(shares)))
    assert storage.load_arrays(out / f"{name}.npz")
