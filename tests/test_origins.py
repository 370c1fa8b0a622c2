"""Verdicts that are kept are of the code that is there: files of claims, and installed packs."""

import importlib
import json
import subprocess
import sys
from importlib import metadata

import pytest

import loraone_theory as lt
from loraone_theory.claims import origins, packs, report, sweep
from loraone_theory.cli import main

CLAIM = """
import numpy as np
from loraone_theory.claims import Claim, Evidence
{imports}

def claim(name):
    return Claim(
        id=f"mine/{{name}}", title="-", reference="-", statement="-", hypotheses=("-",), how="-",
        kind="bound", measure=lambda draws: Evidence(np.full(draws.trials, {level}), 1.0),
        mutant_statement="-", mutant=lambda draws: Evidence(np.full(draws.trials, 2.0), 1.0),
        trials=5, smoke_trials=5)

CLAIMS = (claim("one"), claim("two"))
"""
# How the claims take a number from another module.
AT_THE_TOP = CLAIM.format(imports="from helper import LEVEL", level="LEVEL")
IN_A_FOLDER = CLAIM.format(imports="from parts.helper import LEVEL", level="LEVEL")
LATE = CLAIM.format(imports="", level="__import__('helper').LEVEL")


def stopping(row):
    """Interrupts a run after its first verdict."""
    raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path):
    """A file of claims whose number is in a module beside it, and in one further down."""
    (tmp_path / "parts").mkdir()
    for place in (tmp_path, tmp_path / "parts"):
        (place / "helper.py").write_text("LEVEL = 0.5\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("helper", "parts", "a_pack"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "edited"),
    [(AT_THE_TOP, "helper.py"), (IN_A_FOLDER, "parts/helper.py"), (AT_THE_TOP, "own.py")],
)
def test_an_edit_of_what_a_file_of_claims_is_made_of_is_noticed(folder, text, edited):
    source, path = folder / "own.py", folder / "v.json"
    source.write_text(text)
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(source=source, json=path, report=stopping)
    assert (folder / "v.partial.json").exists()
    changed = folder / edited
    changed.write_text(changed.read_text().replace("0.5", "1.25").replace("LEVEL)", "1.25)"))
    found = lt.verify_all(source=source, json=path)
    assert [str(verdict) for verdict in found] == ["VIOLATED", "VIOLATED"]
    # Nothing is left of the run that the edit made worthless.
    assert not (folder / "v.partial.json").exists()


def test_what_is_not_edited_is_taken_over(folder):
    source, path = folder / "own.py", folder / "v.json"
    source.write_text(AT_THE_TOP)
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(source=source, json=path, report=stopping)
    (entry,) = json.loads((folder / "v.partial.json").read_text())
    found, _ = lt.verify_all(source=source, json=path)
    assert found.seconds == entry["record"]["seconds"]


def test_a_run_that_another_file_left_unfinished_stays(folder):
    path = folder / "v.json"
    for name in ("own.py", "other.py"):
        (folder / name).write_text(AT_THE_TOP)
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(source=folder / "own.py", json=path, report=stopping)
    lt.verify_all(source=folder / "other.py", json=path)
    assert (folder / "v.partial.json").exists()


@pytest.mark.parametrize("text", [AT_THE_TOP, LATE])
def test_modules_beside_a_file_of_claims_can_be_imported_meanwhile(folder, text):
    """In a fresh process, whose path has not the folder; and afterwards it has it no more."""
    (folder / "claims").mkdir()
    source = folder / "own.py"
    source.write_text(text)
    code = (
        "import sys; before = list(sys.path)\n"
        "from loraone_theory.cli import main\n"
        f"code = main(['verify', '--from', {str(source)!r}])\n"
        "sys.exit(code or sys.path != before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "claims", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_path_stays_as_it_was(folder):
    before = list(sys.path)
    (folder / "own.py").write_text(AT_THE_TOP)
    lt.verify_all(source=folder / "own.py")
    (folder / "own.py").write_text("import helper, no_such_module")
    with pytest.raises(ImportError, match="no_such_module"):
        packs.from_file(folder / "own.py")
    assert sys.path == before


@pytest.mark.parametrize("text", ["import sys; sys.exit(3)", "raise SystemExit('enough')"])
def test_an_exit_at_import_is_an_import_error(tmp_path, text, capsys):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(ImportError, match=r"own\.py cannot be run: SystemExit: (3|enough)"):
        packs.from_file(path)
    assert main(["verify", "--from", str(path)]) == 1
    assert "cannot be run: SystemExit" in capsys.readouterr().err


@pytest.fixture
def installed(folder, monkeypatch):
    """A package with an entry point, and how it is met again by a new process."""
    package = folder / "a_pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("LEVEL = 0.5\n")
    text = CLAIM.format(imports="from a_pack.helper import LEVEL", level="LEVEL")
    (package / "claims.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    point = metadata.EntryPoint("mine", "a_pack.claims", "loraone_theory.claims")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])

    def anew():
        packs._installed.cache_clear()
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.startswith("a_pack")]:
            del sys.modules[name]

    anew()
    yield package, anew
    packs._installed.cache_clear()


@pytest.mark.parametrize("edited", [True, False])
def test_an_edit_of_an_installed_pack_is_noticed(installed, edited):
    package, anew = installed
    path = package.parent / "v.json"
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(paper="mine", json=path, report=stopping)
    if edited:
        (package / "helper.py").write_text("LEVEL = 1.25\n")
    anew()
    found = lt.verify_all(paper="mine", json=path)
    assert {str(verdict) for verdict in found} == {"VIOLATED" if edited else "SUPPORTED"}
    assert not (package.parent / "v.partial.json").exists()


@pytest.mark.parametrize("edited", [True, False])
def test_rows_of_an_installed_pack_are_of_its_code(installed, edited):
    package, anew = installed
    path, made = package.parent / "rows.json", []
    sweep.sweep(paper="mine", seeds=2, json=path)
    if edited:
        (package / "helper.py").write_text("LEVEL = 1.25\n")
    anew()
    counts = sweep.sweep(paper="mine", seeds=2, json=path, report=made.append)
    assert len(made) == (4 if edited else 0)
    assert [tally.turned for tally in counts] == ([2, 2] if edited else [0, 0])


def test_an_environment_in_the_folder_is_none_of_the_claims(folder, monkeypatch):
    inside = folder / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    (inside / "a_pack.py").write_text("")
    monkeypatch.syspath_prepend(inside)
    (folder / "own.py").write_text("")
    before = origins.of_file(folder / "own.py")
    importlib.import_module("a_pack")
    assert origins.of_file(folder / "own.py") == before
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("helper")
    assert origins.of_file(folder / "own.py") != before


def test_the_command_that_judges_again_names_the_file(folder):
    (folder / "own.py").write_text(AT_THE_TOP)
    both = lt.verify_all(["mine/one", "lora-one/linear/one-step"], source=folder / "own.py")
    commands = [report.command(verdict.to_record()) for verdict in both]
    assert commands[0].startswith(f"loraone verify mine/one --from {folder / 'own.py'} --trials 5")
    assert "--from" not in commands[1]
    assert f"`{commands[0]}`" in report.render([both[0].to_record()], source="v.json")
