"""What an installed package relies on: its parts, its extras, its names as types, its self-test."""

import importlib
import json
import re
import tomllib
import typing
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from versions import lines

import loraone_theory as lt
from loraone_theory import environment, selftest, shipped, storage
from loraone_theory.cli import main
from loraone_theory.core import extras, names
from loraone_theory.dynamics.batches import SAMPLING
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.methods import METHODS
from loraone_theory.methods.rules import RULES
from loraone_theory.problems.linear.laws import LAWS, STUDENT
from loraone_theory.problems.sensing.operators import OPERATORS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_version():
    assert "version" in PROJECT["project"]["dynamic"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.M).group(1) == lt.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest.group(1) == lt.__version__


@pytest.mark.parametrize(
    ("literal", "registry"),
    [
        (names.MethodName, METHODS),
        (names.RecordName, RECORDS),
        (names.RuleName, RULES),
        (names.EnsembleName, OPERATORS),
        (names.InputLaw, [*LAWS, *STUDENT]),
        (names.Sampling, SAMPLING),
    ],
    ids=["methods", "records", "rules", "ensembles", "inputs", "sampling"],
)
def test_names_that_an_editor_completes_are_those_of_the_registry(literal, registry):
    assert sorted(typing.get_args(literal)) == sorted(registry)


def test_what_the_wheel_carries_is_where_it_is_looked_for(monkeypatch, tmp_path):
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name, target in wheel["sources"].items():
        assert shipped.folder(name) == ROOT / name
        assert name in wheel["only-include"]
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(shipped, "_BESIDE", tmp_path)
            assert shipped.folder(name) == ROOT / target


def test_an_absent_package_is_named_with_its_extra():
    with (
        pytest.raises(extras.MissingExtra, match=r"^nowhere is not installed: pip install") as info,
        extras.extra("peft"),
    ):
        importlib.import_module("nowhere.at.all")
    assert "'loraone-theory[peft]'" in str(info.value)
    assert info.value.name == "nowhere"


def test_every_extra_named_in_a_message_is_declared():
    declared = set(PROJECT["project"]["optional-dependencies"])
    named = set()
    for path in [*(ROOT / "loraone_theory").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'\bextra\("([a-z]+)"', text))
        named |= set(re.findall(r"loraone-theory\[([a-z]+)\]", text))
    assert {"peft", "tables", "experiments", "test"} <= named <= declared


def test_lacking():
    wanted = [Requirement(line) for line in ("numpy>=999", "numpy>=1", "no-such>=1")]
    old, absent = environment.lacking(wanted)
    assert re.fullmatch(r"numpy [\d.]+ is not >=999", old)
    assert absent == "no-such is not installed"


def test_doctor_finds_this_installation_right(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("torch", "numpy", "threads", "CUDA", "peft", "right"):
        assert word in printed


@pytest.mark.parametrize("factor", [1 + 2 * selftest.TOLERANCE, float("nan")])
def test_doctor_finds_a_wrong_number(factor, monkeypatch, tmp_path, capsys):
    stored = storage.load_json(selftest.STORED)
    name = next(iter(stored))
    changed = {**stored, name: [stored[name][0], stored[name][1] * factor, *stored[name][2:]]}
    path = tmp_path / "selftest.json"
    path.write_text(json.dumps(changed))
    monkeypatch.setattr(selftest, "STORED", path)
    assert main(["doctor"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_oldest_versions_are_the_lower_bounds():
    pins = dict(line.split("==") for line in lines("oldest"))
    project = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    for requirement in project:
        if requirement.name != "torch":
            assert str(requirement.specifier) == f">={pins[requirement.name]}"
    assert {"peft", "xarray", "scikit-learn"} <= set(pins)
    assert set(lines("newest")) == {f"torch=={pins['torch']}"}


def test_reproduce_leaves_out_what_lacks_an_extra(monkeypatch, tmp_path, capsys):
    """Asked for everything it is left out with the reason; asked for by name it has failed."""
    (tmp_path / "fig_absent.py").write_text(
        '"""Needs something."""\n'
        "from loraone_theory.core.extras import extra\n\n"
        'with extra("peft"):\n    import no_such_package\n'
    )
    where = ["--experiments", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["reproduce", *where]) == 0
    captured = capsys.readouterr()
    assert "left out" in captured.out
    assert "loraone-theory[peft]" in captured.err
    assert main(["reproduce", "fig_absent", *where]) == 1


def test_report_without_a_file_is_of_the_verdicts_that_came_along(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0
    assert Path("paper_checks.md").read_text() == (ROOT / "paper_checks.md").read_text()
