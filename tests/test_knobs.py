"""Bad values of every knob of every experiment: one clear line, before anything is run."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from loraone_theory import experiment
from loraone_theory.cli import script

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = experiment.find(ROOT / "experiments")
# Values that would be bad elsewhere, of the knobs for which they mean something.
RIGHT: dict[str, set[str]] = {
    "fig_alignment spectrum": {"empty", "repeated"},
    "fig_methods spectrum": {"repeated"},
    "fig_rank_regimes spectrum": {"repeated"},
    "fig_rank_regimes damping": {"zero"},
    "fig_rank_regimes methods": {"empty"},
    "fig_relu_convergence ratios": {"empty"},
    "fig_sensing steps": {"repeated"},
    "fig_trajectories shown": {"zero"},
    "table_one_step damping": {"zero"},
}


def bad(default: object) -> dict[str, object]:
    """Name -> a value like the default that is bad of most knobs."""
    if isinstance(default, (bool, str)):
        return {}
    if not isinstance(default, tuple):
        kind = type(default)
        return {"zero": kind(0), "negative": kind(-1), "nan": math.nan}
    entry = default[0] if default else 1.0
    made: dict[str, object] = {"empty": (), "repeated": (entry, entry)}
    if isinstance(entry, tuple):
        return made | {"zero": ((0, 1.0),), "negative": ((1, -1.0),), "nan": ((1, math.nan),)}
    if isinstance(entry, str):
        return made
    kind = type(entry)
    return made | {"zero": (kind(0),), "negative": (kind(-1),), "nan": (math.nan,)}


@pytest.mark.parametrize("name", SCRIPTS)
def test_bad_knobs_are_refused_in_one_line(name: str) -> None:
    config = experiment.load(SCRIPTS[name]).config
    for knob in dataclasses.fields(config):
        for word, value in bad(knob.default).items():
            if word in RIGHT.get(f"{name} {knob.name}", set()):
                assert getattr(config(**{knob.name: value}), knob.name) == value
                continue
            with pytest.raises((ValueError, TypeError), match=rf"^{knob.name} must .*; got ") as e:
                config(**{knob.name: value})
            assert "\n" not in str(e.value), (knob.name, word)


def test_every_exception_is_a_knob_that_is_there() -> None:
    knobs = {
        f"{name} {knob.name}": set(bad(knob.default))
        for name, path in SCRIPTS.items()
        for knob in dataclasses.fields(experiment.load(path).config)
    }
    assert all(words <= knobs[key] for key, words in RIGHT.items())


@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke_presets_and_committed_configs_are_right(name: str) -> None:
    found = experiment.load(SCRIPTS[name])
    assert isinstance(found.config(), experiment.Config)
    for config in (found.smoke, *found.presets.values()):
        assert dataclasses.replace(config) == config
    stored = [path for path in sorted((ROOT / "figures").rglob(f"{name}.json")) if path.is_file()]
    assert stored
    known = {knob.name for knob in dataclasses.fields(found.config)}
    for path in stored:  # some are older than the name of `trials`
        given = json.loads(path.read_text())["config"]
        tuples = {
            key: tuple(tuple(x) if isinstance(x, list) else x for x in value)
            if isinstance(value, list)
            else value
            for key, value in given.items()
            if key in known
        }
        config = found.config(**tuples | {"device": "cpu"})
        assert {key: getattr(config, key) for key in tuples} == tuples | {"device": "cpu"}


@pytest.mark.parametrize(
    "line",
    [
        "fig_digits_trajectories --hidden 0",
        "fig_digits_trajectories --steps -1",
        "fig_digits_trajectories --steps 0",
        "fig_digits_trajectories --pretraining-steps -1",
        "fig_layer_alignment --width 0",
        "fig_sensing --records 0",
        "fig_methods --records 0",
        "fig_online --records 0",
        "fig_online --records -1",
        "fig_step_size --grid 0",
        "fig_step_size --nudge -1",
        "fig_methods --ranks 2 2",
        "fig_alignment --widths 20 20",
        "fig_alignment --stored-every -1",
        "fig_dimension_scaling --per-decade -1",
        "fig_dimension_scaling --chunk -1",
        "table_one_step --steps -1",
        "table_one_step --pretraining-steps -1",
        "table_one_step --batch 0",
    ],
)
def test_the_command_line_says_so(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, flag, *words = line.split()
    assert script(SCRIPTS[name], ["--smoke", flag, *words]) == 2
    captured = capsys.readouterr()
    knob = flag.removeprefix("--").replace("-", "_")
    assert captured.out == ""
    assert captured.err.startswith(f"error: {knob} must ")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_script_may_let_its_knobs_be_anything() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own(experiment.Config):
        offset: float = experiment.knob(0.0, least=-math.inf)
        seeds: tuple[int, ...] = experiment.knob((), least=0, empty=True, repeats=True)
        level: float = 0.5

    assert Own(offset=-3.0, seeds=(0, 0)).offset == -3.0
    with pytest.raises(ValueError, match=r"^seeds must be >= 0; got seeds=-1; raise it$"):
        Own(seeds=(-1,))
    with pytest.raises(ValueError, match=r"^level must be > 0; got level=0.0; raise it$"):
        Own(level=0.0)
    with pytest.raises(ValueError, match=r"^offset must hold numbers; got NaN in offset"):
        Own(offset=math.nan)
