"""Data made again against the data kept: the number, the verdict, and what is left on disk."""

import math
from pathlib import Path

import numpy as np
import pytest
from scripts import PARABOLA
from tolerance import rounding

from loraone_theory import agreement, experiment, storage
from loraone_theory.cli import main

REAL = "fig_condition_number"  # quick at full size
NAME = "fig_good"


@pytest.mark.parametrize(
    ("made", "kept", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, 1.0 + 2**-20], [1.0, 1.0], 2**-20),
        ([4.0, 2**-30], [4.0, 0.0], 2**-30 / (2**-26 * 4.0)),  # below the floor
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan, 1.0], [1.0, 1.0], math.inf),
        ([1.0, 1.0], [np.nan, 1.0], math.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], math.inf),
        ([0.0, 1e-300], [0.0, 0.0], math.inf),
        ([7, 10], [7, 8], 0.25),
        ([7.0, 8.0], [7, 8], math.inf),
        ([True, False], [True, True], math.inf),
        (["a", "b"], ["a", "b"], 0.0),
        (["a", "c"], ["a", "b"], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_the_largest_relative_difference(made: list, kept: list, expected: float) -> None:
    found, where = agreement.difference({"x": np.array(made)}, {"x": np.array(kept)})
    assert found == expected
    assert where == "x"


def test_clocks_do_not_count_and_missing_arrays_do() -> None:
    kept = {"loss": np.ones(3), "lora.seconds": np.ones(3), "seconds": np.ones(3)}
    assert agreement.same_bits(kept | {"seconds": np.zeros(3), "lora.seconds": np.zeros(2)}, kept)
    assert agreement.difference({"loss": np.ones(3)}, kept)[0] == math.inf
    worse = kept | {"loss": np.array([1.0, 1.5, 1.0])}
    assert agreement.difference(worse, kept) == (0.5, "loss")
    assert not agreement.same_bits(worse, kept)


def test_what_the_table_says() -> None:
    said = agreement.Agreement
    assert str(said(1e-6, 2.5e-9, "loss")) == "2.5e-09 <= 1e-06 (loss)"
    assert str(said(1e-6, 2.5e-3, "loss")) == "2.5e-03 > 1e-06 (loss)"
    assert str(said(1e-6, 0.0, "loss")) == "none"
    assert str(said(1e-6, None, "nothing is committed")) == "not compared: nothing is committed"
    assert [said(1e-6, x, "").holds for x in (None, 0.0, 1e-6, 2e-6)] == [True, True, True, False]
    assert agreement.tolerance(size=100, growth=3.0) == 10 * 2.0**-26 * 3
    single = pytest.approx(2 * 2.0**-11.5, rel=rounding(1, operations=2))  # a power and a product
    assert agreement.tolerance(size=4, dtype="float32") == single


def test_every_experiment_states_its_tolerance() -> None:
    for path in experiment.find().values():
        text = path.read_text(encoding="utf-8")
        before = text.split("\nTOLERANCE = ")[0].splitlines()
        assert len(before) < len(text.splitlines()), path.name
        assert before[-1].startswith("# "), f"{path.name} must say where its tolerance is from"
        assert 0 < experiment.load(path).tolerance < 0.1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with one small experiment and its committed data."""
    (tmp_path / "experiments").mkdir()
    path = tmp_path / "experiments" / f"{NAME}.py"
    path.write_text(PARABOLA)
    made = experiment.load(path)
    experiment.produce(made, made.config(), tmp_path / "figures")
    return tmp_path


def test_committed_data_come_out_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On this processor, to what the script allows."""
    assert main(["reproduce", REAL, "--out", str(tmp_path)]) == 0
    assert "done" in capsys.readouterr().out.split()


def reproduce(checkout: Path, out: str, *more: str) -> int:
    folders = ["--experiments", str(checkout / "experiments"), "--out", str(checkout / out)]
    return main(["reproduce", NAME, *folders, *more])


def test_a_run_over_the_committed_data_changes_nothing_but_by_numbers(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((checkout / "figures").iterdir())
    before = {path: path.read_bytes() for path in files}
    assert reproduce(checkout, "figures") == 0
    assert {path: path.read_bytes() for path in sorted((checkout / "figures").iterdir())} == before
    assert "none" in capsys.readouterr().out


def test_a_difference_beyond_rounding_fails(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = checkout / "figures" / f"{NAME}.npz"
    arrays, about = storage.load_pair(stored)
    arrays["y"] = arrays["y"] * (1 + 1e-3)
    storage.save_pair(stored, arrays, about)
    assert reproduce(checkout, "elsewhere") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "differs" in said
    assert "1.0e-03 >" in said
    assert "(y)" in said


def test_data_of_a_former_script_differ(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the script's own full size there is something to compare with, or it is out of date."""
    stored = checkout / "figures" / f"{NAME}.npz"
    arrays, about = storage.load_pair(stored)
    about["config"]["points"].append(4)
    storage.save_pair(stored, arrays, about)
    assert reproduce(checkout, "elsewhere") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "differs" in said
    assert "committed with other points:" in said


def test_other_sizes_are_not_compared(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(checkout, "elsewhere", "--smoke") == 0
    assert "not compared: other sizes" in " ".join(capsys.readouterr().out.split())
    (checkout / "figures" / f"{NAME}.npz").unlink()
    assert reproduce(checkout, "elsewhere", "--smoke") == 0
    assert "not compared: nothing is" in " ".join(capsys.readouterr().out.split())
