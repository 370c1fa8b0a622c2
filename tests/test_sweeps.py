"""Sweeps: numbers those of `simulate`, cells kept and gone on with, one error for bad input."""

import functools
import importlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.core.extras import MissingExtra, extra
from loraone_theory.core.threads import one_thread
from loraone_theory.sweeps import cost, version
from loraone_theory.sweeps import run as running
from loraone_theory.sweeps.cells import Cells
from loraone_theory.sweeps.compute import compute
from loraone_theory.sweeps.measures import measure
from loraone_theory.sweeps.own import written
from loraone_theory.sweeps.result import Result
from loraone_theory.sweeps.specification import read, specification
from loraone_theory.sweeps.store import Locks, Store

PROBLEM = {"sampler": "sample_linear", "d": 10, "k": 8, "true_rank": 2, "samples": 60}
FIXED = {**PROBLEM, "noise_std": 0.1, "method": "lora-one", "learning_rate": 0.2, "steps": 30}
AXES = {"rank": [1, 2], "seed": range(5)}
MEASURE = {"risk": "final", "least": {"record": "loss", "reduce": "minimum"}}


def without(table: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def small(folder: Path, **changes: Any) -> lt.Sweep:
    given = {"fixed": FIXED, "axes": AXES, "measure": MEASURE, "runs_per_cell": 3, **changes}
    return lt.Sweep(folder, **given)


def test_cells_by_the_compiled_loops(tmp_path: Path) -> None:
    """The numbers of simulate with that engine; a cell without such a loop fails and says so."""
    pytest.importorskip("numba", reason="the compiled loops need the extra fast")
    fixed = {**PROBLEM, "learning_rate": 0.1, "steps": 30, "rank": 2, "engine": "numba"}
    axes = {"method": ["lora", "lora-adamw"], "seed": [3, 4]}
    sweep = lt.Sweep(tmp_path / "s", fixed=fixed, axes=axes, measure={"loss": "final"})
    done = sweep.run()
    assert (done.computed, done.failed) == (2, 1)
    assert any("method 'lora-adamw'" in reason for reason in sweep.status().reasons)
    given = {name: value for name, value in PROBLEM.items() if name != "sampler"}
    with one_thread():
        run = lt.simulate(
            lt.sample_linear(**given, seeds=(3, 4)), "lora", rank=2, learning_rate=0.1, steps=30,
            engine="numba",
        )  # fmt: skip
    found = sweep.array("loss")
    assert (found[0] == run["loss"][-1].numpy()).all()
    assert np.isnan(found[1]).all()


def bits(sweep: lt.Sweep) -> dict[str, bytes]:
    result = Result(sweep.folder)
    return {name: result.read(each).tobytes() for name, each in result.variables.items()}


def test_numbers_are_those_of_simulate(tmp_path: Path) -> None:
    """Batched axes, a piece of the seeds at a time, against one call for each piece."""
    axes = {
        "method": ["lora", {"name": "lora+", "ratio": 4}],
        "init_std": [0.1, 0.3],
        "learning_rate": [0.05, 0.2, 40.0],
        "seed": [7, 3, 5],
    }
    kept = {
        "risk": "final",
        "least": {"record": "loss", "reduce": "minimum"},
        "when": {"record": "loss", "reduce": "step_of_minimum"},
        "first": {"record": "risk", "reduce": "steps_to", "level": 0.7, "against": "start"},
        "good": {"record": "risk", "reduce": "success", "level": 0.5, "against": "zero"},
    }
    fixed = {**without(FIXED, "method", "learning_rate"), "rank": 2, "steps": 200}
    sweep = lt.Sweep(tmp_path / "s", fixed=fixed, axes=axes, measure=kept, runs_per_cell=12)
    assert sweep.run() == (4, 0, 0, ())
    made = {name: sweep.array(name) for name in (*kept, "outcome", "stopped_at")}
    assert made["risk"].shape == (2, 2, 3, 3)
    methods = [lt.methods.lora(), lt.methods.lora_plus(ratio=4)]
    given = {**without(PROBLEM, "sampler"), "noise_std": 0.1}
    gone = 0
    for m, method in enumerate(methods):
        for piece in (slice(0, 2), slice(2, 3)):
            seeds = axes["seed"][piece]
            with one_thread():
                run = lt.simulate(
                    problem := lt.sample_linear(**given, seeds=seeds), method, rank=2,
                    learning_rate=axes["learning_rate"], init_std=axes["init_std"], steps=200,
                )  # fmt: skip
            loss, risk = run["loss"].numpy(), run["risk"].numpy()
            zero = np.array([0.5 * float((D.dense() ** 2).sum()) for D in _each(problem.shift)])
            for where in np.ndindex(2, 3, len(seeds)):
                course, risks = loss[(slice(None), *where)], risk[(slice(None), *where)]
                at = (m, *where[:2], where[2] + piece.start)
                same(made["risk"][at], risks[-1])
                finite = course[np.isfinite(course)]
                same(made["least"][at], finite.min())
                same(made["when"][at], float(np.flatnonzero(course == finite.min())[0]))
                below = np.flatnonzero(risks <= 0.7 * risks[0])
                same(made["first"][at], float(below[0]) if len(below) else np.nan)
                assert made["good"][at] == (risks[-1] <= 0.5 * zero[where[2]])
                status = run.status[where]
                gone += status.outcome is lt.Outcome.DIVERGED
                assert made["outcome"][at] == list(lt.Outcome).index(status.outcome)
                diverged = status.outcome is lt.Outcome.DIVERGED
                same(made["stopped_at"][at], float(status.step if diverged else 200))
    assert gone > 0


def _each(pairs: lt.Factors) -> Iterator[lt.Factors]:
    return (lt.Factors(A, B) for A, B in zip(pairs.A, pairs.B, strict=True))


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a, b)


def test_samplers_of_every_model(tmp_path: Path) -> None:
    """A ratio of measurements to unknowns, of samples to inputs, and a dimension of points."""
    fixed = {"method": "lora-one", "rank": 1, "learning_rate": 0.1, "steps": 20, "true_rank": 1}
    points = {"d": [6, 8], "k": [6, 5]}
    sensing = lt.Sweep(
        tmp_path / "a",
        fixed={**fixed, "sampler": "sample_sensing", "sample_ratio": 3.0},
        axes={"ensemble": ["dense", "completion", "multi-response"], "seed": [0, 1]},
        together=points,
        measure={"error": "final"},
    )
    assert sensing.run().failed == 0
    assert list(sensing.spec.sizes) == ["ensemble", "point", "seed"]
    counts = {"dense": (33, 36), "completion": (33, 36), "multi-response": (36, 35)}
    for e, name in enumerate(counts):
        for p, (d, k) in enumerate([(6, 6), (8, 5)]):
            problem = lt.sample_sensing(
                ensemble=name, d=d, k=k, true_rank=1, measurements=counts[name][p], seeds=(0, 1)
            )
            run = lt.simulate(problem, "lora-one", rank=1, learning_rate=0.1, steps=20,
                              record=["error"])  # fmt: skip
            same(sensing.array("error")[e, p], run["error"][-1].numpy())
    relu = lt.Sweep(
        tmp_path / "b",
        fixed={**fixed, "sampler": "sample_relu", "d": 6, "k": 5, "sample_ratio": 10},
        axes={"relative_shift": [0.1, 0.2]},
        measure={"loss": "final"},
    )
    assert relu.run().failed == 0
    problem = lt.sample_relu(d=6, k=5, true_rank=1, samples=60, relative_shift=0.2)
    run = lt.simulate(problem, "lora-one", rank=1, learning_rate=0.1, steps=20)
    same(relu.array("loss")[1], run["loss"][-1, 0].numpy())


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a change of the configuration computes what has changed alone."""
    computed: list[Any] = []

    def counting(cell: Any) -> Any:
        computed.append((cell.settings["rank"], cell.seeds))
        return real(cell)

    real = running.compute
    monkeypatch.setattr(running, "compute", counting)
    sweep = small(tmp_path / "s")
    assert sweep.run() == (4, 0, 0, ())
    first = bits(sweep)
    assert sweep.run() == (0, 4, 0, ())
    assert len(computed) == 4
    more = small(tmp_path / "s", axes={"rank": [1, 2, 3], "seed": range(7)})
    computed.clear()
    assert more.run() == (7, 2, 0, ())
    assert sorted(computed) == [
        (1, (3, 4, 5)), (1, (6,)), (2, (3, 4, 5)), (2, (6,)), (3, (0, 1, 2)), (3, (3, 4, 5)),
        (3, (6,)),
    ]  # fmt: skip
    assert more.status().stale == 2
    assert more.delete(["stale"]) == 2
    same(more.array("risk")[:2, :5], np.frombuffer(first["risk"]).reshape(2, 5))
    assert more.delete(["rank=2,3", "seed=6"]) == 2
    assert more.status()[:4] == (9, 7, 0, 2)
    assert more.run().computed == 2


def test_order_and_shards_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small(tmp_path / "a")
    whole.run()
    parts = small(tmp_path / "b")
    done = [parts.run(shard=f"{i}/3").computed for i in (2, 3, 1)]
    assert sum(done) == 4
    assert max(done) == 2
    monkeypatch.setattr(cost, "order", lambda expected: np.arange(len(expected))[::-1])
    turned = small(tmp_path / "c")
    turned.run()
    assert bits(whole) == bits(parts) == bits(turned)


def test_a_damaged_cell_is_found_and_made_again(tmp_path: Path) -> None:
    sweep = small(tmp_path / "s")
    sweep.run()
    before, store = bits(sweep), Store(sweep.folder)
    keys = list(store)
    whole = store.path(keys[0]).read_bytes()
    for damage in (whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b""):
        store.path(keys[0]).write_bytes(damage)
        with pytest.raises(storage.DamagedFile, match="checksum"):
            bits(sweep)
        assert sweep.status().damaged == 1
        with pytest.warns(UserWarning, match="checksum.*computed again"):
            assert sweep.run() == (1, 3, 0, ())
        assert bits(sweep) == before


def test_a_cell_that_fails_is_a_row(tmp_path: Path) -> None:
    axes = {"rank": [2, 9], "learning_rate": [0.1, 90.0], "seed": [0, 1]}
    sweep = small(tmp_path / "s", axes=axes, fixed=without(FIXED, "learning_rate"))
    assert sweep.run().failed == 2
    assert np.isnan(sweep.array("risk")[1]).all()
    assert (sweep.array("outcome")[1] == -1).all()
    assert np.isfinite(sweep.array("risk")[0, 0]).all()
    diverged = list(lt.Outcome).index(lt.Outcome.DIVERGED)
    assert (sweep.array("outcome")[0, 1] == diverged).all()
    ((reason, count),) = sweep.status().reasons.items()
    assert (count, sweep.status().failed) == (2, 2)
    assert "rank must satisfy" in reason
    sweep.to_csv(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "rank,learning_rate,seed,risk,least,outcome,stopped_at,reason"
    assert len(lines) == 1 + 8
    first = sweep.array("risk")[0, 0, 0]
    assert lines[1].startswith(f"2,0.1,0,{first!r},".replace("np.float64(", "").replace(")", ""))
    assert lines[-1].startswith('9,90.0,1,,,,,"ValueError: rank must satisfy')
    assert sweep.run() == (0, 4, 0, ())
    assert sweep.delete(["failed"]) == 2


def test_a_fault_of_the_machine_is_no_result(tmp_path: Path) -> None:
    """The cell is lost, not failed: another run takes it."""
    faulty = {"now": True}

    def sampler(*, seeds: Any, d: int) -> Any:
        if faulty["now"]:
            raise MemoryError("no more")
        return lt.sample_linear(d=d, k=6, true_rank=1, samples=40, seeds=seeds)

    fixed = {"sampler": sampler, "d": 7, "method": "lora", "learning_rate": 0.1, "steps": 3}
    sweep = lt.Sweep(tmp_path / "s", fixed=fixed, axes={"rank": [1, 2]})
    assert sweep.run() == (0, 0, 0, ("MemoryError: no more",) * 2)
    assert list(Store(sweep.folder)) == []
    faulty["now"] = False
    assert sweep.run() == (2, 0, 0, ())


@pytest.mark.parametrize("filters", [["all"], ["stale"]])
def test_cells_that_a_run_is_at_work_on_are_not_deleted(
    filters: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor any of those beside them."""
    sweep = small(tmp_path / "s")
    sweep.run()
    keys = list(Store(sweep.folder))
    fewer = small(tmp_path / "s", fixed={**FIXED, "steps": 3})  # all of them are stale there
    given = fewer if filters == ["stale"] else sweep
    with monkeypatch.context() as patched:
        patched.setattr(Locks, "take", lambda self, key, *, wait=False: key != keys[-1])
        with pytest.raises(ValueError, match="another run is at work on these cells"):
            given.delete(filters)
    assert list(Store(sweep.folder)) == keys
    assert given.delete(filters) == len(keys)


def test_a_missing_extra_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numba is not installed the cell is lost, and the next run takes it."""
    pytest.importorskip("numba", reason="the compiled loops need the extra fast")

    def lacking(*_: Any, **__: Any) -> Any:
        with extra("fast"):
            return importlib.import_module("no_such_package")

    fixed = {**PROBLEM, "learning_rate": 0.1, "steps": 3, "rank": 2, "engine": "numba"}
    sweep = lt.Sweep(tmp_path / "s", fixed={**fixed, "method": "lora"}, axes={"seed": [0]})
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[compute.__module__], "simulate", lacking)
        (lost,) = sweep.run().lost
    assert "pip install 'loraone-theory[fast]'" in lost
    assert list(Store(sweep.folder)) == []
    assert sweep.run() == (1, 0, 0, ())


def test_another_numba_computes_again_what_it_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else; the folder is read with what it was made with."""
    pytest.importorskip("numba", reason="the compiled loops need the extra fast")
    fixed = {**PROBLEM, "method": "lora", "learning_rate": 0.1, "steps": 3, "rank": 2}
    sweep = lt.Sweep(tmp_path / "s", fixed=fixed, axes={"engine": ["torch", "numba"]})
    assert sweep.run() == (2, 0, 0, ())
    known = version._version
    monkeypatch.setattr(
        version, "_version", lambda package: "9.9" if package == "numba" else known(package)
    )
    version.numerics_version.cache_clear()
    try:
        assert not np.isnan(sweep.array("loss")).any()
        assert sweep.run() == (1, 1, 0, ())
    finally:
        monkeypatch.undo()
        version.numerics_version.cache_clear()


@pytest.mark.parametrize("how", ["linear", "sensing", "no prediction"])
def test_best_learning_rates(how: str, tmp_path: Path) -> None:
    """Predicted where it is known, else that of the grid that does best on the pilot."""
    fixed: dict[str, Any] = {**without(FIXED, "noise_std"), "learning_rate": "best", "rank": 2,
                             "steps": 60}  # fmt: skip
    given = without(PROBLEM, "sampler")
    if how == "sensing":
        ours = {"sampler": "sample_sensing", "ensemble": "dense", "measurements": 400}
        fixed = {**without(fixed, "samples", "sampler"), **ours}
        problem = lt.sample_sensing(
            **without(given, "samples"), ensemble="dense", measurements=400, seeds=range(4)
        )
        expected = lt.predict.measured_contraction(problem, "lora-one", rank=2).best_step.min()
    else:
        problem = lt.sample_linear(**given, seeds=range(4))
        near = lt.predict.contraction(problem, "lora-one", rank=2)
        expected = near.best_step.min()
    if how == "no prediction":
        fixed["method"] = "lora-one-adamw"
        expected = lt.tune_step(problem, "lora-one-adamw", rank=2, steps=60).learning_rate
    sweep = lt.Sweep(tmp_path / "s", fixed=fixed, axes={"seed": [11, 12]}, measure=MEASURE if
                     how != "sensing" else {"loss": "final"})  # fmt: skip
    assert sweep.run().failed == 0
    same(sweep.array("used_learning_rate"), np.full(2, float(expected)))


def test_reductions_longhand() -> None:
    """Success within a factor of the floor, vectors, curves and functions of one's own."""
    problem = lt.sample_linear(**without(PROBLEM, "sampler"), noise_std=0.1, seeds=(0, 1))
    run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.3, steps=80,
                      record=["loss", "risk", "singular_values"])  # fmt: skip
    floor = lt.predict.noise_floor(problem, noise_std=0.1).numpy()
    for factor in (0.5, 1.0, 2.0, 100.0):
        found = measure("risk", {"reduce": "success", "factor": factor}).of(run, problem)
        same(found, (run["risk"][-1].numpy() <= factor * floor).astype(float))
    least = lt.predict.floor(problem, "lora-one", rank=2).numpy()
    level = 1e-3
    found = measure("loss", {"reduce": "steps_to", "factor": 1.0, "level": level}).of(run, problem)
    below = run["loss"].numpy() <= least + level
    same(found, [np.flatnonzero(below[:, i])[0] for i in range(2)])
    same(measure("loss", "curve").of(run, problem), run["loss"].numpy().T)
    same(measure("singular_values", "final").of(run, problem), run["singular_values"][-1].numpy())
    own = measure("loss", lambda values, steps: values[steps == 10][0]).of(run, problem)
    same(own, run["loss"][10].numpy())


@pytest.mark.parametrize(("rank", "sigma"), [(1, 0.0), (1, 0.1), (2, 0.0), (2, 0.1), (3, 0.1)])
def test_floors_of_measurements(rank: int, sigma: float) -> None:
    """Success of the loss near the floor of noisy measurements, at, below and beyond r*."""
    problem = lt.sample_sensing(
        ensemble="dense", d=6, k=5, true_rank=2, measurements=120, noise_std=sigma, seeds=(0, 1)
    )
    run = lt.simulate(problem, "lora-one", rank=rank, learning_rate=0.2, steps=60,
                      record=["loss"])  # fmt: skip
    least = lt.predict.measured_floor(problem, "lora-one", rank=rank).numpy()
    for level in (1e-6, 1e-3, 1.0):
        wanted = {"reduce": "steps_to", "factor": 1.0, "level": level}
        below = run["loss"].numpy() <= least + level
        first = [np.flatnonzero(b)[0] if b.any() else np.nan for b in below.T]
        found = measure("loss", wanted).of(run, problem)
        assert np.array_equal(np.where(np.isfinite(found), found, np.nan), first, equal_nan=True)


def test_floors_that_no_measurements_have() -> None:
    problem = lt.sample_sensing(ensemble="dense", d=6, k=5, true_rank=2, measurements=120)
    run = lt.simulate(problem, "lora-ga", rank=2, learning_rate=0.1, steps=3, record=["loss"])
    with pytest.raises(ValueError, match="no floor of the loss is known for 'lora-ga'"):
        measure("loss", {"reduce": "success", "factor": 1.0}).of(run, problem)


@pytest.mark.parametrize("how", ["until", "steps", "every"])
def test_curves_stand_at_the_steps_at_which_they_were_recorded(how: str, tmp_path: Path) -> None:
    """Cells that end early, that are longer, or that are recorded less often than others."""
    pytest.importorskip("xarray", reason="the extra sweep is not installed")
    fixed, axes = {**FIXED, "rank": 2}, {"noise_std": [0.0, 0.1], "seed": [0, 1]}
    more: list[dict[str, Any]] = [{}, {}]
    if how == "until":  # that with noise goes on to its end
        fixed["until"] = lt.Until("loss", 1e-3)
        fixed["steps"], fixed["every"] = 500, 3
    else:
        axes[how] = [30, 7] if how == "steps" else [1, 4]
        more = [{how: value} for value in axes[how]]
    fixed = without(fixed, *axes)
    data = lt.sweep(tmp_path / "s", fixed=fixed, axes=axes, measure={"loss": "curve"})
    lengths = set()
    for noise in axes["noise_std"]:
        problem = lt.sample_linear(**without(PROBLEM, "sampler"), noise_std=noise, seeds=(0, 1))
        for own in more:
            given = {n: v for n, v in fixed.items() if n in ("every", "until", "steps")}
            with one_thread():
                run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.2, **given, **own)
            found = data["loss"].sel(noise_std=noise, **own).transpose("step", "seed")
            there = ~np.isnan(found.values).any(1)
            assert found["step"].values[there].tolist() == run.steps.tolist()
            same(found.values[there], run["loss"].numpy())
            lengths.add(len(run.steps))
    assert len(lengths) == 2
    assert len(data["step"]) >= max(lengths)


def test_a_filter_is_about_this_sweep(tmp_path: Path) -> None:
    """Cells of another one in the folder stay; stale is what the sweep at hand does not ask for."""
    sweep = small(tmp_path / "s")
    sweep.run()
    other = small(tmp_path / "s", name="other")
    for filters in (["all"], ["stale"], ["rank=1"]):
        with pytest.raises(ValueError, match="holds another sweep"):
            other.delete(filters)
    fewer = small(tmp_path / "s", axes={"rank": [2], "seed": range(5)})
    assert fewer.status().stale == 2
    assert fewer.delete(["stale"]) == 2
    assert (fewer.status().stale, fewer.status().done) == (0, 2)


def test_a_sampler_of_ones_own_has_arguments_of_its_own(tmp_path: Path) -> None:
    def sampler(*, seeds: Any, d: int, ensemble: str, inputs: int) -> Any:
        assert (ensemble, inputs) == ("mine", 3)
        return own_sampler(seeds=seeds, d=d)

    fixed = {"sampler": sampler, "d": 7, "ensemble": "mine", "inputs": 3, "method": "lora",
             "rank": 1, "learning_rate": 0.1, "steps": 3}  # fmt: skip
    assert lt.Sweep(tmp_path / "s", fixed=fixed).run() == (1, 0, 0, ())


def test_the_result_is_labelled_and_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xarray = pytest.importorskip("xarray", reason="the extra sweep is not installed")
    reads: list[str] = []
    real = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: reads.append(key) or real(self, key))
    kept = {**MEASURE, "loss": "curve"}
    found = lt.sweep(
        tmp_path / "s", fixed=FIXED, axes=AXES, measure=kept, runs_per_cell=3, name="small"
    )
    assert isinstance(found, xarray.Dataset)
    assert dict(found.sizes) == {"rank": 2, "seed": 5, "step": 31}
    assert found["risk"].dims == ("rank", "seed")
    assert found["risk"].attrs["units"] == "1"
    assert "Expected loss" in found["risk"].attrs["long_name"]
    assert found["rank"].values.tolist() == [1, 2]
    units = {name: each.attrs["units"] for name, each in found.coords.items()}
    assert units == {"rank": "1", "seed": "1", "step": "step"}
    assert found["rank"].attrs["long_name"] == "rank r of the factors"
    assert found["step"].values.tolist() == list(range(31))
    assert json.loads(found.attrs["sweep"])["name"] == "small"
    reads.clear()
    again = lt.open_sweep(tmp_path / "s")
    again = lt.open_sweep(tmp_path / "s")
    opened = len(reads)
    assert again["risk"].sel(rank=2, seed=4).values == found["risk"].values[1, 4]
    assert len(reads) == opened + 1 + 4  # one cell, and `found` whole
    same(again["risk"][::-1, [4, 0, 2]].values, found["risk"].values[::-1][:, [4, 0, 2]])
    same(again["loss"].sel(rank=1).isel(step=-1, seed=slice(1, 4)).values,
         found["loss"].values[0, 1:4, -1])  # fmt: skip
    assert (again["reason"].values == "").all()


# Zarr says so of groups that xarray writes, and older ones of strings.
@pytest.mark.filterwarnings("ignore:.* is currently not part in the Zarr format 3")
def test_it_goes_into_other_formats(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="the extra sweep is not installed")
    pytest.importorskip("zarr", reason="the extra sweep is not installed")
    pytest.importorskip("h5netcdf", reason="the extra sweep is not installed")
    pandas = pytest.importorskip("pandas", reason="the extra sweep is not installed")
    pytest.importorskip("pyarrow", reason="the extra sweep is not installed")
    axes = {"method": ["lora", "lora-one"], "rank": [2, 9], "seed": [0, 1]}
    sweep = small(tmp_path / "s", axes=axes, fixed=without(FIXED, "method"))
    sweep.run()
    found = lt.open_sweep(sweep.folder)
    found.to_netcdf(tmp_path / "s.nc")
    found.to_zarr(tmp_path / "s.zarr")
    found.load()
    with xarray.open_dataset(tmp_path / "s.nc") as again:
        assert again.identical(found)
    with xarray.open_zarr(tmp_path / "s.zarr") as again:
        assert again.identical(found)
    table = sweep.to_pandas()
    table.to_parquet(tmp_path / "s.parquet")
    assert pandas.read_parquet(tmp_path / "s.parquet").equals(table)
    assert table["risk"].tolist()[:2] == found["risk"].values[0, 0].tolist()
    assert "rank must satisfy" in table["reason"].tolist()[-1]


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, arrays and CSV; the rest says what to install before anything is computed."""
    for name in ("xarray", "pandas", "distributed", "dask"):
        monkeypatch.setitem(sys.modules, name, None)
    sweep = small(tmp_path / "s")
    with pytest.raises(MissingExtra, match=r"pip install 'loraone-theory\[sweep\]'"):
        sweep.run(workers=2)
    with pytest.raises(MissingExtra, match=r"loraone-theory\[sweep\].*lt.Sweep"):
        lt.sweep(tmp_path / "t", fixed=FIXED, axes=AXES)
    assert list(tmp_path.iterdir()) == []
    sweep.run()
    sweep.to_csv(tmp_path / "t.csv")
    assert sweep.array("risk").shape == (2, 5)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "axis": ({"axes": {"rnak": [1], "rank": [2]}}, "did you mean 'rank'"),
    "value": ({"axes": {"rank": [1, "2"]}}, "rank must be an integer"),
    "negative": ({"axes": {"rank": [1, -2]}}, "rank must be >= 1"),
    "method": ({"axes": {"rank": [1], "method": ["lora-oen"]},
                "fixed": without(FIXED, "method")}, "did you mean 'lora-one'"),
    "hyper": ({"fixed": {**FIXED, "method": {"name": "lora+", "raito": 2}}}, "mean 'ratio'"),
    "sampler": ({"fixed": {**FIXED, "sampler": "sample_liner"}}, "did you mean 'sample_linear'"),
    "ensemble": ({"fixed": {**without(FIXED, "sampler", "samples"), "sampler": "sample_sensing",
                            "measurements": 9, "ensemble": "desne"}}, "did you mean 'dense'"),
    "missing": ({"fixed": without(FIXED, "samples")}, "samples must be given"),
    "no steps": ({"fixed": without(FIXED, "steps")}, "steps must be given"),
    "rate": ({"fixed": {**FIXED, "learning_rate": "bst"}}, "a schedule or 'best'"),
    "rates": ({"axes": {"learning_rate": [0.1, -1]}, "fixed": {**without(FIXED, "learning_rate"),
               "rank": 1}}, "learning_rate must be finite and > 0"),
    "schedule": ({"fixed": {**FIXED, "learning_rate": {"schedule": "cosin"}}}, "'cosine'"),
    "twice": ({"fixed": {**FIXED, "rank": 2}}, "'rank' must be given once"),
    "same values": ({"axes": {"rank": [1, 1]}}, "values of an axis must differ"),
    "same seeds": ({"axes": {"rank": [1], "seed": [3, 3]}}, "values of an axis must differ"),
    "empty": ({"axes": {"rank": []}}, "at least one value"),
    "lengths": ({"together": {"true_rank": [1, 2], "noise_std": [0.1]}, "fixed":
                 without(FIXED, "true_rank", "noise_std")}, "true_rank has 2, noise_std has 1"),
    "span": ({"axes": {"rank": {"rang": [1, 3]}}}, "did you mean 'range'"),
    "record": ({"measure": {"riks": "final"}}, "did you mean 'risk'"),
    "reduction": ({"measure": {"risk": "finel"}}, "did you mean 'final'"),
    "key": ({"measure": {"a": {"record": "risk", "redcue": "final"}}}, "did you mean 'reduce'"),
    "level": ({"measure": {"a": {"record": "risk", "reduce": "success"}}}, "give level"),
    "name": ({"measure": {"rank": {"record": "risk"}}}, "'rank' is taken"),
    "runs": ({"runs_per_cell": 0}, "runs_per_cell must be >= 1"),
    "misspelt": ({"axes": {"rnk": [1, 2]}}, "did you mean 'rank'"),
    "inputs": ({"axes": {"rank": [1], "inputs": ["gaussian", "gausian"]}}, "mean 'gaussian'"),
    "columns": ({"fixed": {**without(FIXED, "sampler"), "sampler": "sample_relu",
                           "relative_shift": 0.1, "columns": "orthonrmal"}}, "mean 'orthonormal'"),
    "sampling": ({"fixed": {**FIXED, "sampling": "epoch"}}, "did you mean 'epochs'"),
    "engine": ({"fixed": {**FIXED, "engine": "nmuba"}}, "did you mean 'numba'"),
    "hyper twice": ({"fixed": {**FIXED, "method": {"name": "lora+", "ratio": 2}},
                     "axes": {"rank": [1], "ratio": [2, 4]}}, "'ratio' must be given once"),
    "hyper of a made one": ({"fixed": {**FIXED, "method": lt.methods.lora_plus(ratio=2)},
                             "axes": {"rank": [1], "ratio": [2, 4]}}, "name must be one of"),
    "taken": ({"measure": {"step": {"record": "risk"}}}, "'step' is taken"),
    "table": ({"axes": [1]}, "axes must be a table"),
    "object": ({"fixed": {**FIXED, "spectrum": threading.Lock()}}, "use a function"),
    "both": ({"fixed": {**FIXED, "sample_ratio": 2}}, "sample_ratio decides samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_whole(name: str, tmp_path: Path) -> None:
    changes, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        small(tmp_path / "s", **changes).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers must be >= 1"),
        ({"shard": "0/3"}, 'shard must be such as "3/16"'),
        ({"shard": "4/3"}, 'shard must be such as "3/16"'),
        ({"shard": 3}, "shard must be a str"),
        ({"scheduler": "10.0.0.1"}, "such as tcp://"),
        ({"scheduler": "tcp://127.0.0.1:1", "workers": 2}, "leave one out"),
    ],
)
def test_bad_engines_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    with pytest.raises((ValueError, TypeError), match=message):
        small(tmp_path / "s").run(**given)
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_refused(tmp_path: Path) -> None:
    sweep = small(tmp_path / "s")
    sweep.run()
    before = sorted(sweep.folder.rglob("*"))
    for changes, message in (
        ({"name": "other"}, "name is sweep, here other"),
        ({"axes": {"rank": [1, 2]}}, r"axes are \['rank', 'seed'\], here \['rank'\]"),
    ):
        other = small(tmp_path / "s", **changes)
        for work in (other.run, other.status):
            with pytest.raises(ValueError, match=message):
                work()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        small(tmp_path / "full").run()
    with pytest.raises(FileNotFoundError, match=r"has no sweep.json"):
        lt.Sweep(tmp_path / "none", fixed={**FIXED, "rank": 1}).array("risk")
    storage.save_json(tmp_path / "s" / "sweep.json", {"format": 99})
    with pytest.raises(storage.DamagedFile, match="format"):
        sweep.run()
    assert sorted((tmp_path / "s").rglob("*")) == before


TOML = """
runs_per_cell = 3
[fixed]
sampler = "sample_linear"
d = 10
k = 8
true_rank = 2
samples = 60
noise_std = 0.1
steps = 30
until = {record = "loss", level = 1e-3}
[axes]
method = ["lora-one", {name = "lora-one", gamma = 2.0}]
rank = [1, 2]
learning_rate = [0.2, {schedule = "cosine", peak = 0.2, steps = 30}]
seed = {range = [5]}
[measure]
risk = "final"
least = {record = "loss", reduce = "minimum"}
"""


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    sweep = lt.Sweep.of_file(tmp_path / "a.toml")
    assert sweep.folder == tmp_path / "a"
    assert sweep.spec.name == "a"
    assert sweep.run().failed == 0
    python = lt.Sweep(
        tmp_path / "b",
        fixed={**without(FIXED, "method", "learning_rate"), "until": lt.Until("loss", 1e-3)},
        axes={
            "method": ["lora-one", {"name": "lora-one", "gamma": 2.0}],
            "rank": [1, 2],
            "learning_rate": [0.2, lt.schedules.cosine(0.2, steps=30)],
            "seed": np.arange(5),
        },
        measure=MEASURE,
        runs_per_cell=3,
        name="a",
    )
    keys = [cell.key for cell in Cells(sweep.spec)]
    assert keys == [cell.key for cell in Cells(python.spec)]
    assert keys == [cell.key for cell in Result(sweep.folder).cells]
    for text, message in (
        ("[fixed", "must be a TOML file"),
        ("[axes]\nrank = [1]", r"must have a table \[fixed\]"),
        ("[fxied]", "did you mean 'fixed'"),
    ):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "c.toml")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "none.toml")


HELPER = 2.0


def always(rate: float) -> Any:
    return lambda t: rate


def halved(t: int) -> float:
    return 0.2 / HELPER


def own_sampler(*, seeds: Any, d: int) -> Any:
    return lt.sample_linear(d=d, k=6, true_rank=1, samples=40, seeds=seeds)


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told apart by their code, by what they capture, and by what they reach."""
    method = lt.methods.lora().with_rule(
        lambda learning_rate, damping: lt.methods.rules.gd(learning_rate), name="own"
    )
    largest = lt.Record("largest", lambda view: view.shift.dense().abs().amax((-2, -1)))
    axes = {"learning_rate": [0.1, halved], "seed": [0, 1]}
    sweep = lt.Sweep(
        tmp_path / "s",
        fixed={"sampler": own_sampler, "d": 7, "method": method, "rank": 1, "steps": 9},
        axes=axes,
        measure={"largest": {"record": largest}, "end": {"record": "loss", "reduce": last}},
    )
    assert sweep.run() == (1, 0, 0, ())
    same(sweep.array("end")[0], sweep.array("end")[1])
    assert (sweep.array("largest") > 0).all()
    assert sweep.run() == (0, 1, 0, ())
    before = written("rate", halved)
    monkeypatch.setitem(globals(), "HELPER", 4.0)
    assert written("rate", halved) != before
    assert written("rate", functools.partial(halved, 1)) != before
    one, again, two = map(always, (1, 1, 2))
    assert written("x", one) == written("x", again) != written("x", two)
    for hidden in (threading.Lock(), object(), iter([1])):
        with pytest.raises(TypeError, match="so that a cell can be told from others"):
            written("x", lambda t, hidden=hidden: 0.1)
        with pytest.raises(TypeError, match="so that a cell can be told from others"):
            written("x", functools.partial(halved, hidden))


def last(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return values[-1]


def test_cells_depend_on_the_configuration_alone() -> None:
    spec = specification(fixed=FIXED, axes={"rank": [1, 2], "seed": range(300)})
    cells = Cells(spec)
    assert [cell.seeds[0] for cell in cells] == [0, 128, 256] * 2
    assert sum(cell.runs for cell in cells) == spec.runs == 600
    large = {**without(FIXED, "d", "samples"), "samples": 4000, "rank": 1}
    spec = specification(fixed=large, axes={"d": [8, 2000], "seed": range(8)}, runs_per_cell=8)
    assert [len(cell.seeds) for cell in Cells(spec)] == [8] + [1] * 8  # 160 MB an instance
    with pytest.raises(IndexError):
        cells[6]


def test_filters_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    sweep = small(tmp_path / "s")
    sweep.run()
    for filters, message in (
        ([], "got none"),
        (["rnak=2"], "did you mean 'rank'"),
        (["rank=7"], "must be one of 1, 2"),
        (["faild"], "did you mean 'failed'"),
        (["stale", "rank=2"], "give stale alone"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep.delete(filters)
    assert sweep.status().done == 4
    assert sweep.delete(["all"]) == 4


def test_what_takes_longer_comes_first() -> None:
    """Twice the steps, runs or width take longer in the model; the order is theirs."""
    fixed = {**without(FIXED, "steps"), "rank": 2}
    cells = Cells(specification(fixed=fixed, axes={"steps": [10, 1000, 100], "seed": range(4)}))
    expected = cost.of_all(cells)
    assert cost.order(expected).tolist() == [1, 2, 0]
    settings = {"sampler": "x", "d": 50, "k": 50, "rank": 4, "samples": 800, "steps": 500}
    base = cost.seconds(settings, 64, 64)
    assert cost.seconds(settings, 128, 128) > 1.5 * base
    assert cost.seconds({**settings, "d": 200}, 64, 64) > 2 * base
    of = [
        cost.of_all(Cells(specification(fixed={**FIXED, "rank": 2, **more}))).sum()
        for more in ({}, {"method": "lora-one-preconditioned"}, {"learning_rate": "best"},
                     {"learning_rate": "best", "method": "lora-one-adamw"})
    ]  # fmt: skip
    assert of[1] > of[0] < of[2] < of[3]


@pytest.mark.slow
def test_the_cost_model_against_measured_times(tmp_path: Path) -> None:
    """Processor time of a few cells of each kind: within a factor of 5, and in the same order.

    The factor is that between processors, and between an idle one and one whose memory is shared.
    """
    fixed = {
        "method": "lora-one",
        "learning_rate": 0.05,
        "rank": 2,
        "true_rank": 2,
        "d": 16,
        "k": 16,
    }
    linear = {"sampler": "sample_linear", "samples": 400}
    dense = {"sampler": "sample_sensing", "ensemble": "dense", "measurements": 200}
    relu = {"sampler": "sample_relu", "samples": 200, "relative_shift": 0.1}
    rules = {"method": "lora-one-preconditioned"}
    sought = {**linear, **rules, "learning_rate": "best"}
    pairs = []
    for problem in (linear, dense, relu, {**linear, **rules}, sought):
        for steps in (100, 1600):
            spec = specification(fixed={**fixed, **problem, "steps": steps},
                                 axes={"seed": range(16)}, measure={"loss": "final"})  # fmt: skip
            (cell,) = Cells(spec)
            compute(cell)
            start = time.process_time()
            assert compute(cell).failure == ""
            pairs.append((cost.of(cell), time.process_time() - start))
    ratios = [measured / expected for expected, measured in pairs]
    assert 1 / 5 < min(ratios) <= max(ratios) < 5, pairs
    long = [pairs[i] for i in (1, 3, 5)]
    assert sorted(long) == sorted(long, key=lambda pair: pair[1])


def test_heatmaps(tmp_path: Path) -> None:
    axes = {"rank": [1, 2], "noise_std": [0.1, 0.2, 0.4], "seed": [0, 1]}
    sweep = small(tmp_path / "s", axes=axes, fixed=without(FIXED, "noise_std"))
    sweep.run()
    figure = sweep.heatmap("risk", x="noise_std", y="rank", boundary=lambda x, y: x - 0.1 * y)
    mesh = figure.axes[0].collections[0]
    mean = sweep.array("risk").mean(-1)
    np.testing.assert_array_equal(mesh.get_array(), mean)
    turned = sweep.heatmap("risk", x="rank", y="noise_std", at={"seed": 1})
    np.testing.assert_array_equal(
        turned.axes[0].collections[0].get_array(), sweep.array("risk")[..., 1].T
    )
    # In any order of the values; equal ratios are equally wide.
    axes = {"rank": [2, 1], "noise_std": [0.4, 0.1, 0.2], "seed": [0, 1]}
    mixed = small(tmp_path / "m", axes=axes, fixed=without(FIXED, "noise_std"))
    mixed.run()
    (ax, _) = mixed.heatmap("risk", x="noise_std", y="rank", boundary=lambda x, y: x - 0.3).axes
    np.testing.assert_array_equal(ax.collections[0].get_array(), mean)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    across = ax.collections[0].get_coordinates()[0, :, 0]
    expected = 0.1 * 2.0 ** np.array([-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(across, expected, rtol=rounding(8))
    for given, message in (
        ({"x": "rank", "y": "rank"}, "two axes"),
        ({"x": "rnak", "y": "rank"}, "did you mean 'rank'"),
        ({"x": "rank", "y": "noise_std", "at": {"seed": 7}}, "seed must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep.heatmap("risk", **given)


def test_the_example_runs(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parent.parent / "examples" / "sweep_ranks.toml"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep = lt.Sweep.of_file(path, tmp_path / "s")
        assert sweep.run().failed == 0
    assert sweep.forecast().runs == sweep.spec.runs
    good = sweep.array("recovered").mean(-1)
    assert good.min() < 0.5 < good.max()
