"""Labelled outputs and the figure of a run, against its tensors."""

import json

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.dynamics import labelled

RECORD = ("loss", "risk", "left_alignment", "left_angles", "singular_values")


@pytest.fixture(scope="module")
def run():
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))
    given = {"rank": 3, "learning_rate": [0.05, 0.1], "steps": 7, "every": 3, "seeds": [8, 9]}
    return lt.simulate(problem, "lora", record=RECORD, **given)


def test_a_dataset_has_the_tensors_with_their_labels(run):
    pytest.importorskip("xarray", reason="xarray is not installed")
    found = run.to_xarray()
    assert found["loss"].dims == ("step", "learning_rate", "seed")
    assert found["left_angles"].dims == ("step", "learning_rate", "seed", "angle")
    for name in RECORD:
        assert np.array_equal(found[name].values, run[name].numpy(), equal_nan=True)
    assert found["step"].values.tolist() == [0, 3, 6, 7]
    assert found["problem_seed"].dims == ("seed",)
    assert found["problem_seed"].values.tolist() == [3, 4]
    one = found["risk"].sel(step=6, learning_rate=0.1, seed=9)
    assert float(one) == float(run["risk"][2, 1, 1])
    assert found["loss"].attrs["units"] == "1"
    assert found["left_angles"].attrs["units"] == "rad"
    again = lt.rerun(json.loads(found.attrs["config"]))
    assert torch.equal(again["loss"], run["loss"])


def test_a_table_has_one_row_for_each_number(run):
    pytest.importorskip("pandas", reason="pandas is not installed")
    found = run.to_pandas()
    assert len(found) == sum(value.numel() for value in run.records.values())
    columns = ["step", "learning_rate", "seed", "problem_seed", "record", "index", "value"]
    assert list(found.columns) == columns
    for name in RECORD:
        values = found[found["record"] == name]["value"].to_numpy()
        assert np.array_equal(values, run[name].numpy().ravel(), equal_nan=True)
    picked = found[
        (found["record"] == "singular_values") & (found["step"] == 6) & (found["seed"] == 9)
    ]
    picked = picked[(picked["learning_rate"] == 0.05) & (picked["index"] == 2)]
    assert picked["value"].item() == float(run["singular_values"][2, 0, 1, 2])
    assert picked["problem_seed"].item() == 4


@pytest.mark.parametrize("axis", ["step", "seed", "learning_rate", "problem_seed", "loss", "angle"])
def test_any_name_of_an_axis_of_ones_own_can_be_labelled(axis):
    pytest.importorskip("xarray", reason="xarray is not installed")
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))
    mine = lt.Record("mine", lambda view: view.singular_values[..., :1], axis=axis)
    record = ("loss", "left_angles", mine)
    given = {"rank": 3, "learning_rate": [0.1, 0.2], "steps": 4, "seeds": [8, 9]}
    run = lt.simulate(problem, "lora", record=record, **given)
    found = run.to_xarray()
    assert found["mine"].dims == ("step", "learning_rate", "seed", f"mine_{axis}")
    assert np.array_equal(found["mine"].values, run["mine"].numpy())
    assert found["step"].values.tolist() == [0, 1, 2, 3, 4]
    assert len(run.to_pandas()) == sum(value.numel() for value in run.records.values())


def test_what_is_not_installed_is_named():
    with pytest.raises(ImportError, match="no_such_library is not installed: pip install"):
        labelled.optional("no_such_library")


def test_the_figure_shows_records_floor_and_plateau():
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))
    record = ("loss", "risk", "left_alignment")
    run = lt.simulate(problem, "lora", rank=1, learning_rate=0.05, steps=9, record=record)
    risk, loss, alignment = run.plot().axes
    assert [ax.get_ylabel() for ax in (risk, loss, alignment)] == ["risk", "loss", "alignment"]
    for ax, name in ((risk, "risk"), (loss, "loss")):
        expected = run[name].mean(-1).numpy()  # band draws the mean over seeds
        assert ax.lines[0].get_ydata() == pytest.approx(expected, rel=rounding(2))
    floor = float(lt.predict.floor(problem, "lora", rank=1).mean())
    assert loss.lines[1].get_ydata()[0] == pytest.approx(floor, rel=rounding(2))
    assert [t.get_text() for t in loss.get_legend().get_texts()] == ["loss", "predicted floor"]
    wide = lt.simulate(problem, "lora", rank=4, learning_rate=0.05, steps=9, record=record)
    height = float(lt.predict.plateau(problem).mean())
    drawn = wide.plot().axes[2].lines[-1].get_ydata()[0]
    assert drawn == pytest.approx(height, rel=rounding(2))
    bare = lt.simulate(problem, "lora", rank=1, learning_rate=0.05, steps=2, record=("error",))
    with pytest.raises(ValueError, match="none was recorded; got error"):
        bare.plot()
    assert bare.plot("error").axes[0].get_ylabel() == "error"


def test_long_labels_stand_below_the_panels(run):
    figure = run.plot()
    assert all(ax.get_legend() is None for ax in figure.axes)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["risk, learning_rate=0.05", "risk, learning_rate=0.1"]
    assert len(texts) == len(set(texts))
    before = [ax.get_position().height for ax in figure.axes]
    figure.canvas.draw()  # warnings are errors: everything fits
    assert min(before) > 0


def test_statuses_and_records_print_in_a_line(run):
    assert repr(run.status[0, 0]) == "RunStatus(COMPLETED)"
    gone = lt.RunStatus(lt.Outcome.DIVERGED, 7)
    assert repr(gone) == "RunStatus(DIVERGED, step=7)"
    angles = lt.RECORDS["left_angles"]
    assert repr(angles) == "Record('left_angles', axis='angle', unit='rad')"
    assert repr(lt.RECORDS["loss"]) == "Record('loss')"


def test_records_of_ones_own_keep_their_unit_and_are_drawn(tmp_path):
    def halves(view):
        """Norms of both factors."""
        return torch.stack([torch.linalg.matrix_norm(M) for M in view.trainable], -1)

    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))
    mine = lt.Record("halves", halves, invariant=True, axis="factor", unit="m")
    record = ("loss", "left_angles", mine)
    made = lt.simulate(problem, "lora", rank=3, learning_rate=0.1, steps=5, record=record)
    made.save(tmp_path / "run.npz")
    for run in (made, lt.Trajectory.load(tmp_path / "run.npz"), made.extend(2)):
        assert run.units == {"loss": "1", "left_angles": "rad", "halves": "m"}
        assert run.docs["halves"] == "Norms of both factors."
        own, angles = run.plot("halves", "left_angles").axes[:2]
        assert own.get_ylabel() == "halves [m]"
        assert angles.get_ylabel() == "left_angles [rad]"
        texts = [text.get_text() for text in own.get_legend().get_texts()]
        assert texts == ["factor 0", "factor 1"]
        for entry, line in enumerate(own.lines):
            mean = run["halves"][..., entry].mean(-1).numpy()
            np.testing.assert_allclose(line.get_ydata(), mean, rtol=rounding(2))
    with pytest.raises(ValueError, match="record must be"):
        made.plot("halve")
    with pytest.raises(TypeError, match="unit of record 'halves'"):
        lt.Record("halves", halves, unit=1)
