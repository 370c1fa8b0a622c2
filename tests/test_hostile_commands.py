"""Hostile words for every option of every command: one clear line, or the right thing done.

The rows are made from the fields of the commands, so that a new option is covered the day it is
added. An option accepts a word on the list RIGHT only.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripts import UNDRAWN

from loraone_theory import bench, storage
from loraone_theory.claims import CLAIMS
from loraone_theory.claims.run import verify_all
from loraone_theory.cli import commands, main

SIZES = "--d 6 --k 5 --rank 2 --true-rank 2 --steps 2 --trials 1 --samples"
SMALL = [*SIZES.split(), "20"]
OWN = ["simulate", "lora-one", "--rank", "2", "--steps", "2", "--trials", "1"]
# What each command is called with besides the hostile words.
BASE: dict[str, list[str]] = {
    "simulate": ["simulate", "lora-one", *SMALL],
    "compare": ["compare", "lora-one", *SMALL],
    "bench": ["bench", "nothing", "--pairs", "1"],
    "describe": ["describe"],
    "explore": ["explore", "--script", "lab.py"],  # which serves no page
    "list": ["list"],
    "report": ["report", "--json", "verdicts.json", "--out", "made.md"],
    "reproduce": ["reproduce", "fig_good", "--experiments", "experiments", "--out", "made"],
    "sweep": ["sweep", "sweep.toml", "--folder", "cells"],
    "verify": ["verify", "lora-one/linear/one-step", "--smoke"],
    "verify-seeds": ["verify-seeds", "lora-one/linear/one-step", "--seeds", "1"],
}
# Options that go with others, or that another one of the base excludes.
WITH: dict[str, list[str]] = {
    "simulate seeds": ["simulate", "lora-one", *SMALL[:-4], "--samples", "20"],
    "simulate damping": ["simulate", "lora-one-preconditioned", *SMALL],
    "simulate init_std": ["simulate", "lora", *SMALL],
    "simulate sampling": [*BASE["simulate"], "--batch-size", "4"],
    "simulate relative_shift": [*BASE["simulate"], "--model", "relu"],
    "simulate data": [*OWN, "--labels", "X.npy"],
    "simulate labels": [*OWN, "--data", "X.npy"],
    "simulate weights": [*OWN, "--data", "X.npy", "--labels", "X.npy"],
    "compare relative_shift": [*BASE["compare"], "--model", "relu"],
    "explore script": ["explore"],
    "bench page": [*BASE["bench"], "--json", "rows.json"],
    "bench render_only": ["bench", "--json", "timed.json", "--page", "a.md"],
    "simulate method": ["simulate"],
    "compare methods": ["compare", *SMALL],
    "bench names": ["bench"],
    "sweep file": ["sweep"],
    "sweep folder": ["sweep", "sweep.toml"],
    "sweep workers": ["sweep", "sweep.toml", "--dry-run"],
    "sweep delete": ["sweep", "sweep.toml", "--folder", "swept"],
    "verify claims": ["verify", "--smoke"],
    "verify paper": ["verify", "--smoke"],
    "verify-seeds claims": ["verify-seeds", "--seeds", "1"],
    "verify-seeds paper": ["verify-seeds", "--seeds", "1"],
    "verify-seeds seeds": ["verify-seeds", "lora-one/linear/one-step"],
    "verify source": ["verify", "--smoke"],
    "verify dtype": ["verify", "lora-one/relu/gradient-cost", "--smoke"],
    "verify long": ["verify", "--smoke", "--paper", "quick"],
    "reproduce names": ["reproduce", "--experiments", "experiments", "--out", "made"],
}

INTEGERS = ("-1", "0", "1.5", "x", "", "nan", "1e3", "True", str(2**70), "-" + "9" * 400)
NUMBERS = ("-1", "nan", "inf", "-inf", "x", "", "1e400", "True", "1j", "0")
TEXTS = ("nonsense", "", "[red]o[/x]", "é" * 400)
PATHS = (
    "folder", "folder/", "", "nowhere/file.npz", "note.txt", "note.txt/file.json", "-", ".",
    "n" * 300 + ".npz", "n" * 300 + ".json", "damaged.npz", "damaged.json", "damaged.npy",
    "damaged.csv", "empty.npy", "empty.csv", "list.json", "[red]o[/x].npz",
)  # fmt: skip
# Annotation of a field -> hostile words, each a list of what follows the option.
WORDS: dict[str, list[list[str]]] = {
    "int": [[w] for w in INTEGERS],
    "float": [[w] for w in NUMBERS],
    "str": [[w] for w in TEXTS],
    "Path": [[w] for w in PATHS],
    "Literal": [[w] for w in (*TEXTS, "1")],
    "bool": [["yes"], [""]],
    "tuple[str": [[], *([w] for w in (*TEXTS, "=", "=1", "a=b=c", "a=" + "[" * 300))],
    "tuple[int": [[], *([w] for w in INTEGERS if w != "0"), ["0", "x"]],
}
# Words that are no fault of these options.
RIGHT: dict[str, set[str]] = {
    # No steps cannot be, but the first seed, no noise, no damping and no damage can.
    "verify seed": {"0"},
    "simulate damping": {"0"},
    "simulate noise_std": {"0"},
    "compare noise_std": {"0"},
    # Nothing is set; nothing is recorded.
    "simulate set": {"(none)"},
    "simulate record": {"(none)"},
    # A file that is there is replaced.
    "simulate save": {"damaged.npz"},
    "compare save": {"damaged.npz"},
    "verify draws": {w for w in PATHS if not w.startswith(("note", "damaged", "empty", "list"))},
    "sweep csv": {"damaged.csv", "empty.csv"},
    "sweep folder": {
        w
        for w in PATHS
        if not w.startswith(("note", "damaged", "empty", "list", ".")) and w not in ("", ".")
    },
    # Any folder that is there or can be made.
    "reproduce out": {w for w in PATHS if not w.startswith(("note", "damaged", "empty", "list"))},
}
# Words that are good, by option or by field; without them the rows would show nothing.
GOOD_WORDS: dict[str, str] = {
    "d": "7", "k": "5", "rank": "2", "true_rank": "2", "samples": "21", "steps": "3",
    "trials": "2", "seeds": "1 2", "condition_number": "2", "relative_shift": "0.2",
    "learning_rate": "0.2", "schedule": "constant rate=0.1", "method": "lora", "methods": "lora",
    "set": "scale=2", "model": "relu", "batch_size": "4", "sampling": "epochs", "init_std": "0.1",
    "damping": "0.1", "record": "loss", "every": "2", "reduce": "never", "device": "cpu",
    "engine": "torch",
    "dtype": "float32", "noise_std": "0.1", "data": "X.npy", "labels": "X.npy",
    "weights": "W.npy", "save": "a.npz", "plot": "a.png", "tune": "", "tiny": "", "smoke": "",
    "names": "nothing", "reproduce names": "fig_good", "json": "rows.json", "page": "a.md",
    "pairs": "1", "render_only": "", "name": "lora",
    "experiments": "experiments", "report json": "verdicts.json",
    "out": "made.md", "reproduce out": "made", "reproduce plot_only": "", "claims": "T3.3",
    "list claims": "", "paper": "quick", "verify-seeds seeds": "2", "full": "",
    "verify-seeds json": "new.json", "long": "", "source": "own.py",
    "workers": "1", "draws": "made", "file": "sweep.toml", "folder": "made", "csv": "a.csv",
    "shard": "2/3", "dry_run": "", "status": "",
    "delete": "rank=1 seed=0",
    "port": "8790", "no_browser": "", "script": "lab.py",
    "confidence": "0.9", "seed": "3",
}  # fmt: skip


# Types that commands share, as they would be written in place.
SHARED = {"Name": "tyro.conf.Positional[str]", "Names": "tyro.conf.Positional[tuple[str, ...]]"}


def type_of(field: dataclasses.Field) -> str:
    """The type of a command's field, as it is written."""
    return SHARED.get(str(field.type), str(field.type))


def flag_of(field: dataclasses.Field) -> list[str]:
    """The option's name on the command line; positional arguments have none."""
    if "Positional" in type_of(field):
        return []
    name = "from" if "name='from'" in type_of(field) else field.name
    return [f"--{name.replace('_', '-')}"]


def words_for(annotation: str) -> list[list[str]]:
    """Hostile words for a field of this type; none at all are all there are, where positional."""
    inner = annotation.removeprefix("tyro.conf.Positional[").removeprefix("Annotated[")
    found = next(words for start, words in WORDS.items() if inner.startswith(start))
    return [words for words in found if words or inner == annotation]


def rows() -> Iterator[tuple[str, str]]:
    for name, command in commands.COMMANDS.items():
        for field in dataclasses.fields(command):  # type: ignore[arg-type]
            yield name, field.name


SWEEP = """
[fixed]
sampler = "sample_linear"
d = 6
k = 5
true_rank = 1
samples = 30
method = "lora-one"
learning_rate = 0.1
steps = 3
[axes]
rank = [1, 2]
seed = [0, 1]
"""
OWN_CLAIM = """
import dataclasses

from loraone_theory.claims import CLAIMS

step = CLAIMS["lora-one/linear/one-step"]
CLAIMS = (dataclasses.replace(step, id="own/one-step", aliases=()),)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("verdicts") / "verdicts.json"
    verify_all(["lora-one/linear/one-step"], smoke=True, json=path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that is done."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.toml").write_text(SWEEP)
    main(["sweep", str(folder / "sweep.toml"), "--folder", str(folder / "swept")])
    return folder / "swept"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: bytes, swept: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench.BENCHMARKS, "nothing", lambda setting: iter(()))
    step = CLAIMS["lora-one/linear/one-step"]
    quick = dataclasses.replace(step, id="quick/one-step", aliases=())
    monkeypatch.setitem(CLAIMS, quick.id, quick)
    slow = dataclasses.replace(quick, id="quick/long", long=True)
    monkeypatch.setitem(CLAIMS, slow.id, slow)
    (tmp_path / "folder").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "fig_good.py").write_text(UNDRAWN)
    (tmp_path / "note.txt").write_text("a note")
    (tmp_path / "sweep.toml").write_text(SWEEP)
    shutil.copytree(swept, tmp_path / "swept")
    (tmp_path / "own.py").write_text(OWN_CLAIM)
    for suffix in ("npz", "json", "npy", "csv"):
        (tmp_path / f"damaged.{suffix}").write_bytes(b"PK\x03\x04\xff\x00{")
    for suffix in ("npy", "csv"):
        (tmp_path / f"empty.{suffix}").write_bytes(b"")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.standard_normal((20, 6)))
    np.save(tmp_path / "W.npy", rng.standard_normal((6, 6)))
    (tmp_path / "list.json").write_text("[1, {}]")
    row = dataclasses.asdict(bench.Row("timed", "none", None, 1.0))
    storage.save_json(tmp_path / "timed.json", {"rows": [row], "made_with": storage.provenance()})
    (tmp_path / "verdicts.json").write_bytes(verdicts)
    return tmp_path


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of one thread of this process."""
    distributed = pytest.importorskip("distributed", reason="the extra sweep is not installed")
    size = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    where = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**size, **where) as cluster:
        yield cluster.scheduler_address


def files(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with a command's answer to these words, or ""."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as error:  # of the parser
        return "" if error.code == 2 else f"exit {error.code}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error!s:.80}"
    said = capsys.readouterr()
    if code == 0:
        return "accepted"
    if "Traceback" in said.err or not said.err.startswith("error: ") or said.err.count("\n") != 1:
        return f"exit {code}, not one line: {said.err or said.out:.300}"
    return "" if 20 < len(said.err) < 1500 else f"unclear: {said.err:.80}"


@pytest.mark.parametrize(("command", "option"), list(rows()))
def test_good_words(
    command: str,
    option: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Else the rows below would show nothing."""
    field = next(f for f in dataclasses.fields(commands.COMMANDS[command]) if f.name == option)  # type: ignore[arg-type]
    full = f"{command} {option}"
    if option == "plot_only":
        assert main(BASE[command]) == 0
    words = GOOD_WORDS.get(full, GOOD_WORDS.get(option))
    if option == "scheduler":
        words = request.getfixturevalue("scheduler")
    assert words is not None, f"{full} needs good words in GOOD_WORDS of this file"
    assert main([*WITH.get(full, BASE[command]), *flag_of(field), *words.split()]) == 0
    assert capsys.readouterr().err == ""


def test_a_choice_of_nothing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else every claim would be judged in place of none."""
    monkeypatch.delitem(CLAIMS, "quick/long")
    assert answer(["verify", "--smoke", "--paper", "quick", "--long"], capsys) == ""


@pytest.mark.parametrize(("command", "option"), list(rows()))
def test_hostile_words(
    command: str, option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = next(f for f in dataclasses.fields(commands.COMMANDS[command]) if f.name == option)  # type: ignore[arg-type]
    full = f"{command} {option}"
    base = WITH.get(full, BASE[command])
    flag = flag_of(field)
    before, found = files(folder), {}
    for words in words_for(type_of(field)):
        text = " ".join(words) if words else "(none)"
        if text not in RIGHT.get(full, ()) and (said := answer([*base, *flag, *words], capsys)):
            found[text[:40]] = said
        if files(folder) != before:
            found[f"{text[:40]} written"] = str(sorted(set(files(folder)) - set(before)))
            break
    assert found == {}
