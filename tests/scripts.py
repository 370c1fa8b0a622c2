"""Experiment scripts in tests: one by its name, and what its smallest size has to write."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tolerance import rounding

from loraone_theory import experiment, storage

FOLDER = Path(__file__).resolve().parent.parent / "experiments"


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
