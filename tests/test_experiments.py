"""The runner, the experiments at their smallest size, and the pieces of them that compute."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tolerance
from scipy.optimize import minimize_scalar
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import experiment, plotting, storage
from loraone_theory.cli import reproduce, script

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
SCRIPTS = sorted(FOLDER.glob("fig_*.py"))
LINEAR = (
    "fig_alignment",
    "fig_condition_number",
    "fig_dimension_scaling",
    "fig_methods",
    "fig_rank_regimes",
    "fig_step_size",
    "fig_trajectories",
)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smallest size of every experiment of the linear model."""
    out = tmp_path_factory.mktemp("smoke")
    for name in LINEAR:
        loaded = experiment.load(FOLDER / f"{name}.py")
        experiment.produce(loaded, loaded.smoke, out)
    return out


@pytest.mark.parametrize("name", LINEAR)
def test_smoke_writes_four_kinds_of_files(name: str, smoke: Path) -> None:
    assert (smoke / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (smoke / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    about = json.loads((smoke / f"{name}.json").read_text())
    loaded = experiment.load(FOLDER / f"{name}.py")
    assert about["seeds"] == list(range(loaded.smoke.trials))
    assert about["config"] == json.loads(json.dumps(dataclasses.asdict(loaded.smoke)))
    assert about["wall_time_s"] > 0
    assert {"torch", "numpy", "matplotlib", "python"} <= set(about["versions"])
    assert about["commit"]
    assert storage.load_arrays(smoke / f"{name}.npz")


@pytest.mark.parametrize("name", ["fig_condition_number", "fig_trajectories"])
def test_figures_come_from_the_stored_data_alone(name: str, smoke: Path) -> None:
    loaded = dataclasses.replace(experiment.load(FOLDER / f"{name}.py"), run=None)
    before = {path: path.read_bytes() for path in smoke.glob(f"{name}*.p*")}
    for path in before:
        path.unlink()
    drawn = experiment.redraw(loaded, smoke)
    assert set(drawn) == set(before)
    assert all(path.read_bytes() == before[path] for path in drawn)


def test_same_seeds_same_data(smoke: Path, tmp_path: Path) -> None:
    loaded = experiment.load(FOLDER / "fig_trajectories.py")
    experiment.produce(loaded, loaded.smoke, tmp_path)
    first, second = (storage.load_arrays(p / "fig_trajectories.npz") for p in (smoke, tmp_path))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key], equal_nan=True) for key in first)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_keeps_the_contract(path: Path) -> None:
    loaded = experiment.load(path)
    assert issubclass(loaded.config, experiment.Config)
    assert isinstance(loaded.smoke, loaded.config)
    assert experiment.summary(path).endswith(".")
    text = path.read_text()
    for field in dataclasses.fields(loaded.config):  # every knob has its help below it
        if f"    {field.name}:" in text:
            below = text.split(f"    {field.name}:", 1)[1]
            assert below.partition("\n")[2].lstrip().startswith('"""'), field.name


def test_a_script_shows_its_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    path = FOLDER / "fig_condition_number.py"
    with pytest.raises(SystemExit) as exit_info:
        script(path, ["--help"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(experiment.load(path).config):
        assert f"--{field.name.replace('_', '-')} " in shown
    assert "η of gradient descent. (default: 0.25)" in shown


@pytest.mark.parametrize(("name", "has"), [("condition_number", False), ("rank_regimes", True)])
def test_only_scripts_with_presets_have_that_option(
    name: str, has: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FOLDER / f"fig_{name}.py"
    with pytest.raises(SystemExit):
        script(path, ["--help"])
    assert ("--preset" in capsys.readouterr().out) is has
    with pytest.raises(SystemExit if not has else ValueError) as refused:
        reproduce.script(path, ["--preset", "notebok"])
    assert not has or "notebook" in str(refused.value)


@pytest.mark.parametrize("words", [["--preset", "notebook"], ["--preset=notebook"]])
@pytest.mark.parametrize("name", ["fig_alignment", "fig_rank_regimes"])
def test_a_preset_goes_on_top_of_the_smallest_size(
    name: str, words: list[str], tmp_path: Path
) -> None:
    path, steps = FOLDER / f"{name}.py", 20
    given = ["--smoke", "--trials", "1", "--steps", str(steps), *words, "--out", str(tmp_path)]
    assert script(path, given) == 0
    found = experiment.load(path)
    preset, usual = found.presets["notebook"], found.config()
    expected = json.loads(json.dumps(dataclasses.asdict(found.smoke)))
    for knob in dataclasses.fields(preset):
        value = getattr(preset, knob.name)
        if value != getattr(usual, knob.name):
            expected[knob.name] = list(value) if isinstance(value, tuple) else value
    about = json.loads((tmp_path / f"{name}.json").read_text())
    assert about["config"] == expected | {"trials": 1, "steps": steps}
    assert about["config"] != expected


def test_a_script_runs_alone(tmp_path: Path) -> None:
    arguments = ["--smoke", "--trials", "1", "--out", "here"]
    command = [sys.executable, str(FOLDER / "fig_condition_number.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    about = json.loads((tmp_path / "here" / "fig_condition_number.json").read_text())
    assert (about["seeds"], about["config"]["d"]) == ([0], 20)


# In place of NumPy: whoever imports it is interrupted.
INTERRUPTS = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("path", sorted(experiment.find(FOLDER).values()), ids=lambda p: p.stem)
def test_a_script_can_be_interrupted_while_it_imports(path: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(INTERRUPTS)
    places = os.pathsep.join([str(tmp_path), str(FOLDER.parent)])
    done = subprocess.run(
        [sys.executable, str(path), "--smoke", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": places},
    )
    assert done.returncode == 130
    assert done.stderr == "error: interrupted\n"
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ""] == ["numpy.py"]


def test_plot_only_needs_data_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = FOLDER / "fig_condition_number.py"
    assert script(path, ["--plot-only", "--out", str(tmp_path)]) == 1
    assert "run the experiment without --plot-only first" in " ".join(
        capsys.readouterr().err.split()
    )
    storage.save_arrays(tmp_path / "fig_condition_number.npz", {"x": np.zeros(1)})
    storage.save_json(tmp_path / "fig_condition_number.json", {"config": {"seeds": 1, "odd": 2}})
    with pytest.raises(ValueError, match=r"must have the script's fields; .*odd"):
        experiment.redraw(experiment.load(path), tmp_path)


def test_every_method_has_a_style_of_its_own() -> None:
    styles = [plotting.method_style(name) for name in lt.METHODS]
    looks = {(style["color"], style["linestyle"], style.get("marker")) for style in styles}
    assert len(looks) == len({style["label"] for style in styles}) == len(lt.METHODS)


def test_style_leaves_the_callers_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def load_part(name: str, part: str) -> object:
    return getattr(sys.modules[experiment.load(FOLDER / f"{name}.py").run.__module__], part)


def test_distance_to_the_minimisers_against_a_search() -> None:
    distance = load_part("fig_trajectories", "distance")
    rng = np.random.default_rng(0)
    a, delta = rng.standard_normal((2, 30, 2))
    b = rng.standard_normal(30)
    b[:5] = 0.0  # as at LoRA-init
    a[5:10], b[5:10] = delta[5:10] / 2.0, 2.0  # minimisers themselves
    found = distance(a, b, delta)
    grid = np.concatenate([sign * np.geomspace(1e-2, 1e2, 4000) for sign in (-1, 1)])
    for i in range(30):

        def squared(beta: float, i: int = i) -> float:
            return float(((a[i] - delta[i] / beta) ** 2).sum() + (b[i] - beta) ** 2)

        start = grid[np.argmin([squared(beta) for beta in grid])]
        best = minimize_scalar(
            squared,
            bounds=sorted((0.99 * start, 1.01 * start)),
            method="bounded",
            options={"xatol": 1e-12},
        )
        # The squared distance is flat at its least value: β to √eps gives d² to eps of its terms,
        # of which either side makes three.
        terms = float((a[i] ** 2).sum() + b[i] ** 2)
        wrong = rounding(len(a[i]) + 1, operations=6) * terms
        assert found[i] ** 2 == pytest.approx(best.fun, rel=rounding(4), abs=wrong)


def test_crossing_of_an_exponential_is_exact() -> None:
    crossing = load_part("fig_dimension_scaling", "crossing")
    steps = np.arange(0, 101, 4)
    alignment = np.stack([np.exp(-0.03 * steps), np.full(len(steps), 0.9)], axis=-1)
    found = crossing(steps, alignment, 0.2)
    # A logarithm of 0.2 and steps of 0.12 between the points that are joined.
    assert found[0] == pytest.approx(np.log(5) / 0.03, rel=rounding(4, operations=4 / 0.12))
    assert np.isnan(found[1])


def test_slope_interval_covers_and_leaves_out_nan() -> None:
    slope = load_part("fig_dimension_scaling", "slope")
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 5)[:, None].repeat(32, 1)
    y = 2 * x + 0.01 * rng.standard_normal(x.shape)
    y[0, 0] = np.nan
    value, low, high = slope(x, y)
    assert low < value < high
    # The standard error is 0.01/√(160·var x) = 0.0022; the interval is about four of them wide.
    assert 0.004 < high - low < 0.014
    assert low - 0.01 < 2 < high + 0.01


def test_fitted_rate_of_a_geometric_sequence() -> None:
    fitted_rate = load_part("fig_condition_number", "fitted_rate")
    steps = np.arange(200)
    error = np.stack([0.8**steps, np.ones(200)], axis=-1)
    rate = fitted_rate(steps, error, (1e-5, 1e-9))
    # A fit of up to 50 logarithms of size 20, over as many steps.
    assert rate[0] == pytest.approx(0.8, rel=rounding(50, operations=20))
    assert np.isnan(rate[1])


def test_curves_end_on_their_floors() -> None:
    """With a gap in the spectrum at the smaller rank, every method has converged by then."""
    loaded = experiment.load(FOLDER / "fig_rank_regimes.py")
    config = dataclasses.replace(
        loaded.smoke,
        spectrum=(1.0, 0.9, 0.3, 0.25),
        ranks=(2, 4),
        samples=2400,
        learning_rate=0.3,
        steps=600,
    )
    data = loaded.run(config, lambda share: None)
    last, floor = data["loss"][:, :, -1], data["floor"]
    # Rounding only: a loss is a sum of at most 24·24 terms, each relative to the floor; where that
    # is 0, entries move until a step of 0.3 is less than what sums of 24 terms round.
    least = 0.5 * rounding(24, operations=1 / 0.3) ** 2
    assert np.all(np.abs(last - floor) <= rounding(24 * 24) * floor + least)


def test_preconditioned_rate_does_not_depend_on_the_condition_number() -> None:
    loaded = experiment.load(FOLDER / "fig_condition_number.py")
    data = loaded.run(loaded.smoke, lambda share: None)
    flat = data["preconditioned.predicted_rate"]
    # Rates are eigenvalues of forms that the condition number does not enter, but for their frames.
    np.testing.assert_allclose(flat[0], flat[1], rtol=rounding(60, operations=4, condition=10))
    # A finite window sees a slightly faster rate; at 1e-7 … 1e-11 it is within 3 %.
    assert np.all(np.abs(data["preconditioned.rate"] - flat) < 0.03)
    assert np.all(data["gd.rate"][1] > data["gd.rate"][0])


def test_presets_of_the_reference_notebook() -> None:
    """d = k = 100, N = 1600; η = 1/(16σ₁); early LoRA-One and LoRA-GA by damped descent."""
    found = experiment.load(FOLDER / "fig_alignment.py").presets["notebook"]
    assert (found.d, found.samples_per_width * found.d) == (100, 1600)
    assert found.learning_rate * 16 * max(found.spectrum) == pytest.approx(
        1.0, rel=rounding(1, operations=2)
    )
    script_of_ranks = experiment.load(FOLDER / "fig_rank_regimes.py")
    found = script_of_ranks.presets["notebook"]
    assert (found.d, found.samples) == (100, 1600)
    small = dataclasses.replace(
        script_of_ranks.smoke, methods=found.methods, damping=found.damping, trials=1, steps=20,
        preconditioned_learning_rate=0.5,
    )  # fmt: skip
    data = script_of_ranks.run(small, lambda share: None)
    assert data["loss"].shape[:2] == (3, 2)
    problem = lt.sample_linear(
        d=small.d, k=small.d, true_rank=4, samples=small.samples, spectrum=small.spectrum
    )
    method = lt.METHODS["lora-ga"](gamma=small.lora_ga_gammas[0]).trained_by("preconditioned")
    again = lt.simulate(
        problem, method, rank=2, learning_rate=0.5, damping=1e-3, steps=20, record=["loss"]
    )
    np.testing.assert_array_equal(data["loss"][0, 1, -1], again["loss"][-1].numpy())


@pytest.mark.parametrize("name", ["fig_alignment", "fig_methods", "fig_rank_regimes"])
def test_another_quantity_is_recorded_and_drawn(name: str) -> None:
    """‖E‖_F in place of the usual, which is the root of twice the risk of isotropic inputs."""
    found = experiment.load(FOLDER / f"{name}.py")
    small = dataclasses.replace(found.smoke, trials=1, steps=12)
    made = {
        quantity: found.run(dataclasses.replace(small, quantity=quantity), lambda share: None)
        for quantity in ("error", "risk")
    }
    # Two sums of d² squares each, and a root.
    np.testing.assert_allclose(
        made["error"]["error"] ** 2 / 2, made["risk"]["risk"], rtol=tolerance.rounding(30**2)
    )
    with plotting.style():
        figure = found.plot(made["error"], dataclasses.replace(small, quantity="error"))[name]
    labels = [figure.get_supylabel(), *(ax.get_ylabel() for ax in figure.axes)]
    assert any("Vert_F" in label and "frac" not in label for label in labels)


def test_data_without_a_later_knob_are_drawn_at_its_default(smoke: Path, tmp_path: Path) -> None:
    found = experiment.load(FOLDER / "fig_alignment.py")
    data, about = storage.load_pair(smoke / "fig_alignment.npz")
    assert about["config"].pop("spectrum") == []
    storage.save_pair(tmp_path / "fig_alignment.npz", data, about)
    assert experiment.redraw(found, tmp_path)
    about["config"]["colour"] = "red"
    storage.save_pair(tmp_path / "fig_alignment.npz", data, about)
    with pytest.raises(ValueError, match="colour"):
        experiment.redraw(found, tmp_path)


def test_a_knob_is_not_nan() -> None:
    """Else a whole run would be drawn from it."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Knobs(experiment.Config):
        rates: tuple[float, ...] = (0.1,)
        level: float = 0.5

    assert Knobs(rates=(0.1, float("inf"))).level == 0.5
    for knobs in ({"rates": (0.1, float("nan"))}, {"level": float("nan")}):
        with pytest.raises(ValueError, match=r"must hold numbers; got NaN in .*; replace it"):
            Knobs(**knobs)
