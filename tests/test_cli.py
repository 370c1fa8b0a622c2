"""The command line: what it prints, what it writes, and its exit codes."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from scripts import PARABOLA

import loraone_theory as lt
from loraone_theory.cli import COMMANDS, commands, listing, main
from loraone_theory.cli.registries import registries

SMALL = ["--d", "12", "--k", "10", "--rank", "3", "--true-rank", "2", "--samples", "120"]
HERE = ["--experiments", "experiments"]
BRIEF = ["--steps", "30", "--trials", "2"]

BAD = PARABOLA.replace("    progress(1.0)\n", '    raise ArithmeticError("no such parabola")\n')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose experiments are one that fails, one that cannot load, one good."""
    scripts = tmp_path / "experiments"
    scripts.mkdir()
    (scripts / "fig_bad.py").write_text(BAD)
    (scripts / "fig_broken.py").write_text('"""Not an experiment."""\n')
    (scripts / "fig_good.py").write_text(PARABOLA)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: loraone" in shown
    assert "[[STR" not in shown  # arguments without a flag say what they are


@pytest.mark.parametrize(
    "arguments",
    [
        ["paint"],
        ["simulate"],
        ["simulate", "lora", "--stepps", "3"],
        ["reproduce", "--trials", "x"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2


def test_list_names_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *HERE]) == 0
    words = capsys.readouterr().out.split()
    for registry in registries().values():
        if registry.kind == "experiment":
            continue  # those of the folder that was named
        assert {word for name in registry.table for word in name.split()} <= set(words)
    assert {"fig_good", "fig_bad", "fig_broken"} <= set(words)
    assert "parabola." in words  # the docstring's first line, without running the script


def test_titles_in_the_list_are_those_of_the_claims() -> None:
    titles = {name: claim.title for name, claim in registries()["claims"].table.items()}
    assert listing._titles() == titles


NAMED = [(r, name) for r in registries().values() for name in r.table]


@pytest.mark.parametrize(("registry", "name"), NAMED, ids=lambda x: x if isinstance(x, str) else "")
def test_everything_can_be_described(registry, name, capsys) -> None:
    """A first line, every parameter of the factory, and a source file that exists."""
    assert main(["describe", name]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    start = captured.out.index(f"{registry.kind} {name}\n")
    part = captured.out[start:].split("\n\n")
    assert part[1].strip()
    source = re.search(r"^source +(\S+\.py)", captured.out[start:], re.M).group(1)
    assert (Path(lt.__file__).parent.parent / source).is_file()
    if callable(registry.table[name]) and registry.kind in ("method", "problem", "schedule"):
        for parameter in inspect.signature(registry.table[name]).parameters:
            assert re.search(rf"^{parameter} ", captured.out[start:], re.M)


def test_describe_gives_formula_defaults_and_parts(capsys) -> None:
    assert main(["describe", "lora+"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "initialisation gaussian(): A₀ i.i.d. N(0, α²) with α = `std`, B₀ = 0" in words
    assert "ratio 16" in words
    assert "source loraone_theory/methods/lora.py" in words
    assert main(["describe", "Lora-Onee"]) == 2
    assert "did you mean 'lora-one'?" in capsys.readouterr().err


def test_simulate_takes_all_that_a_run_has(tmp_path: Path) -> None:
    """Hyper-parameters, seeds, schedule, batches and records are those of the same call."""
    path = tmp_path / "run.npz"
    options = "--set ratio=4 --seeds 3 5 --schedule cosine peak=0.2 warmup=5 --batch-size 40"
    more = "--sampling epochs --record loss left_angles"
    save = ["--save", str(path)]
    assert (
        main(["simulate", "lora+", *SMALL, "--steps", "30", *f"{options} {more}".split(), *save])
        == 0
    )
    found = lt.Trajectory.load(path)
    problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=120, seeds=(3, 5), keep_inputs=True)
    again = lt.simulate(
        problem,
        lt.METHODS["lora+"](ratio=4),
        rank=3,
        learning_rate=lt.schedules.cosine(0.2, steps=30, warmup=5),
        steps=30,
        batch_size=40,
        sampling="epochs",
        record=("loss", "left_angles"),
    )
    for name in ("loss", "left_angles"):
        assert found[name].equal(again[name])
    assert found.coordinates["seed"] == (3, 5)


def test_simulate_by_the_compiled_loops(tmp_path: Path, capsys) -> None:
    """The run is that of the call, and what has no loop is one sentence."""
    pytest.importorskip("numba", reason="the compiled loops need the extra fast")
    path = tmp_path / "run.npz"
    given = [*SMALL, *BRIEF, "--engine", "numba"]
    assert main(["simulate", "lora", *given, "--save", str(path)]) == 0
    found = lt.Trajectory.load(path)
    problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=120, seeds=(0, 1))
    options = {"rank": 3, "learning_rate": 0.1, "steps": 30, "record": ("risk",)}
    again = lt.simulate(problem, "lora", **options, engine="numba")
    assert found["risk"].equal(again["risk"])
    assert found.config["engine"] == "numba"
    capsys.readouterr()
    assert main(["simulate", "lora-adamw", *given]) == 2
    assert "engine='numba' must be asked for what it has loops for" in capsys.readouterr().err


def test_simulate_on_the_relu_model(tmp_path: Path) -> None:
    path, picture = tmp_path / "run.npz", tmp_path / "run.pdf"
    saved = ["--save", str(path), "--plot", str(picture), "--record", "risk", "singular_values"]
    assert main(["simulate", "lora-one", "--model", "relu", *SMALL, *BRIEF, *saved]) == 0
    problem = lt.sample_relu(d=12, k=10, true_rank=2, samples=120, relative_shift=0.1, seeds=(0, 1))
    again = lt.simulate(problem, "lora-one", rank=3, learning_rate=0.1, steps=30, record=("risk",))
    assert lt.Trajectory.load(path)["risk"].equal(again["risk"])
    assert picture.read_bytes().startswith(b"%PDF")


def test_shell_completion(capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--tyro-print-completion", "bash"])
    assert not exit_info.value.code
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_simulate_prints_a_table_and_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, picture = tmp_path / "run.npz", tmp_path / "run.png"
    saved = ["--save", str(data), "--plot", str(picture)]
    assert main(["simulate", "lora-one", *SMALL, *BRIEF, "--condition-number", "2", *saved]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].split()[:3] == ["t", "loss", "risk"]
    assert "2 of 2 runs: Completed" in captured.out
    assert captured.err == ""
    run = lt.Trajectory.load(data)
    problem = lt.sample_linear(
        d=12, k=10, true_rank=2, samples=120, condition_number=2.0, seeds=(0, 1)
    )
    again = lt.simulate(
        problem, "lora-one", rank=3, learning_rate=0.1, steps=30, seeds=(0, 1), record=("risk",)
    )
    assert run["risk"].equal(again["risk"])
    assert f"{run['risk'][-1].mean():.4g}" in captured.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_divergence_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "lora-one", *SMALL, "--steps", "100", "--learning-rate", "9"]) == 1
    assert "lower the learning rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "lora-on"], "did you mean 'lora-one'"),
        (["simulate", "lora", "--rank", "0"], "rank must be >= 1"),
        (["simulate", "lora", "--learning-rate", "0"], "learning_rate must be finite and > 0"),
        (["simulate", "lora", "--trials", "0"], "trials must be >= 1"),
        (["simulate", "lora", "--damping", "0.1"], "takes no damping"),
        (["simulate", "lora+", "--set", "rati=4"], "did you mean 'ratio'"),
        (["simulate", "lora+", "--set", "ratio"], "must be written NAME=VALUE"),
        (["simulate", "lora", "--schedule", "cosin"], "did you mean 'cosine'"),
        (["simulate", "lora", "--schedule", "cosine"], "needs peak"),
        (
            ["simulate", "lora", "--schedule", "constant", "rate=1", "--learning-rate", "1"],
            "exclude",
        ),
        (["simulate", "lora", "--seeds", "1", "--trials", "1"], "exclude each other"),
        (["simulate", "lora", "--record", "los"], "did you mean 'loss'"),
        (["describe", "lora-on"], "did you mean 'lora-one'"),
        (["simulate", "lora", "--save", "run.csv"], "must end in .npz"),
        (["sweep", "s.toml", "--csv", "a.csv", "--dry-run"], "--csv writes what was computed"),
        (["sweep", "s.toml", "--csv", "a.csv", "--delete", "all"], "--csv writes what was"),
        (["simulate", "lora", "--save", "nowhere/run.npz"], "must exist"),
        (["simulate", "lora", "--plot", "run.bmp"], "must end in .png or .pdf"),
        (["simulate", "lora", "--plot", "run.png", "--record"], "name a record"),
        (["reproduce", "fig_god", *HERE], "did you mean 'fig_good'"),
        (["reproduce", "--trials", "0"], "trials must be >= 1"),
    ],
)
def test_bad_arguments_are_one_line_and_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert {path.name for path in folder.iterdir()} == {"experiments"}


def test_failing_experiment_does_not_stop_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *HERE, "--out", "out"]) == 1
    captured = capsys.readouterr()
    assert "failed: no such parabola" in captured.out
    assert "failed: an experiment" in captured.out  # the rest is folded
    assert "an experiment must define Config, SMOKE, run, plot" in captured.err
    assert "ArithmeticError" in captured.err
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {f"fig_good.{suffix}" for suffix in ("png", "pdf", "npz", "json")}


def test_interruption_keeps_what_is_finished(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = folder / "experiments" / "fig_late.py"
    script.write_text(BAD.replace("ArithmeticError", "KeyboardInterrupt"))
    assert main(["reproduce", "fig_good", "fig_late", "fig_bad", *HERE, "--out", "out"]) == 130
    assert "interrupted" in capsys.readouterr().out
    assert {path.stem for path in (folder / "out").iterdir()} == {"fig_good"}


def test_reproduce_is_quiet_in_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "fig_good", *HERE, "--out", "out"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    assert "\r" not in captured.out
    lines = [line.split() for line in captured.out.splitlines()]
    heading = ["experiment", "result", "seconds", "difference", "from", "committed", "figures"]
    assert lines[:2] == [["written", "to", "out"], heading]
    assert lines[2][:3] == ["fig_good", "not", "compared"]
    assert len(lines) == 3


def test_no_experiments_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("loraone_theory.shipped._BESIDE", tmp_path)
    monkeypatch.setattr("loraone_theory.shipped._INSIDE", tmp_path)
    for command in ("reproduce", "list"):
        assert main([command]) == 2
        assert "has none; install the package again" in capsys.readouterr().err


def test_scripts_of_the_current_folder_run_only_where_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "fig_good", "--out", "out"]) == 2
    assert "experiment must be one of" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_list_survives_a_script_that_cannot_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "experiments" / "fig_syntax.py").write_text("def (:")
    (folder / "experiments" / "fig_binary.py").write_bytes(b"\xff\x00")
    assert main(["list", *HERE]) == 0
    assert capsys.readouterr().out.count("(cannot be read: ") == 2


@pytest.mark.slow
def test_experiments_side_by_side_are_the_same(folder, capsys):
    """Files, table and exit code do not depend on who runs them, but for the clock."""
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    found = {}
    for workers in ("1", "2"):
        code = main(["reproduce", *HERE, "--out", f"out{workers}", "--workers", workers])
        said = capsys.readouterr()
        assert "no such parabola" in said.err
        rows = [
            re.sub(r" \d+\.\d( |$)", " ", " ".join(line.split())) for line in said.out.splitlines()
        ]
        files = {p.name: p.read_bytes() for p in (folder / f"out{workers}").iterdir()}
        about = files.pop("fig_good.json")
        assert b"wall_time_s" in about
        found[workers] = code, rows[1:], files
    assert found["1"] == found["2"]
    assert found["1"][0] == 1


def test_stand_ins_say_what_the_commands_say(capsys, monkeypatch):
    """The help of all commands reads their files; importing them gives the same words."""
    pages = []
    for everything in (False, True):
        if everything:
            monkeypatch.setattr(commands, "needed", lambda arguments: dict(commands.COMMANDS))
        with pytest.raises(SystemExit) as ended:
            commands.run(["--help"])
        assert ended.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    assert all(name in pages[0] for name in commands.PLACES)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_itself_among_stand_ins(name):
    found = commands.needed([name, "--help"])
    assert found[name] is COMMANDS[name]
    assert list(found) == list(COMMANDS)
    for other, kind in found.items():
        assert (inspect.getdoc(kind) or "") == inspect.getdoc(COMMANDS[other])


@pytest.mark.parametrize("name", commands.PLACES)
def test_help_shows_no_default_that_is_no_value(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that may be left out say what they take, and nothing of None."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for word in ("None", "(default: )", "{["):
        assert word not in shown
    left_out = [
        field.name for field in dataclasses.fields(commands.COMMANDS[name]) if field.default is None
    ]
    called = {"source": "from"}
    for option in left_out:
        assert f"--{called.get(option, option).replace('_', '-')} " in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "scale=2", "scale=3"], "got scale twice; leave one out"),
        (["--set", "init_std=0.1", "--init-std", "0.2"], "are the same; give one of them"),
    ],
)
def test_a_setting_is_given_once(words, said, capsys):
    assert main(["simulate", "lora", "--steps", "2", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
