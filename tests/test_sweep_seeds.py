"""Verdicts over master seeds: counted, kept, and gone on with."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Evidence, Finding, sweep
from loraone_theory.cli import main

STEP = "lora-one/linear/one-step"


@pytest.fixture
def turning(monkeypatch):
    """A claim that fails at one master seed of four, its mutant escapes at two; and what is run."""
    asked = []

    def measure(draws):
        asked.append(draws.seed)
        return Evidence(np.full(draws.trials, float(draws.seed == 2)), 0.5)

    def mutant(draws):
        return Evidence(np.full(draws.trials, float(draws.seed < 2)), 0.5)

    claim = dataclasses.replace(
        CLAIMS[STEP], id="made/turning", kind="bound", measure=measure, mutant=mutant, aliases=()
    )
    monkeypatch.setitem(CLAIMS, claim.id, claim)
    return asked


def test_turned_verdicts_and_escaped_mutants_are_counted(turning, tmp_path, capsys):
    tally, other = sweep.sweep(["made/turning", STEP], seeds=4)
    assert tally.verdicts == {Finding.SUPPORTED: 3, Finding.VIOLATED: 1}
    assert (tally.turned, tally.open, tally.found_out, tally.powerful) == (1, 0, 2, False)
    assert (other.turned, other.found_out, other.powerful) == (0, 4, True)
    out = tmp_path / "seeds.md"
    call = ["verify-seeds", "made/turning", STEP, "--seeds", "4", "--page", str(out)]
    assert main(call) == 1
    page = out.read_text()
    row = "| made/turning | smallest | SUPPORTED | 3 |  | 1 | 2 of 4 |"
    assert page.count(row) == 2
    assert page.count(f"| {STEP} |") == 1
    assert "Turned: 1 of 8 verdicts" in page
    assert "- lora-one/theorem-3.1\n" in page
    text = capsys.readouterr().out
    assert "1 of 8 verdicts turned; 1 of 2 mutants found out at 95% of the seeds" in text
    assert "made/turning" in text
    assert STEP not in text


@pytest.mark.parametrize(
    ("seeds", "turns", "escapes", "code"),
    [(4, (), (), 0), (4, (2,), (), 1), (4, (), (3,), 1), (20, (), (3,), 0), (20, (), (3, 4), 1)],
)
def test_the_exit_code_says_whether_something_turned(seeds, turns, escapes, code, monkeypatch):
    """One mutant of twenty may escape."""

    def gives(at):
        return lambda draws: Evidence(np.full(draws.trials, float(draws.seed in at)), 0.5)

    mutant = gives(set(range(seeds)) - set(escapes))
    claim = dataclasses.replace(
        CLAIMS[STEP], id="made/t", kind="bound", measure=gives(turns), mutant=mutant, aliases=()
    )
    monkeypatch.setitem(CLAIMS, claim.id, claim)
    assert main(["verify-seeds", "made/t", "--seeds", str(seeds)]) == code


def test_open_verdicts_have_not_turned():
    counts = Counter({Finding.INCONCLUSIVE: 3, Finding.SUPPORTED: 1})
    tally = sweep.Tally("a/b", Finding.SUPPORTED, counts, Counter({Finding.VIOLATED: 4}))
    assert (tally.turned, tally.open) == (0, 3)


def test_an_interrupted_sweep_goes_on(turning, tmp_path, monkeypatch):
    path, whole = tmp_path / "seeds.json", sweep.sweep(["made/turning"], seeds=4)
    turning.clear()

    def stop(row):
        if row.seed == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(["made/turning"], seeds=4, json=path, report=stop)
    assert turning == [0, 1]
    assert sweep.sweep(["made/turning"], seeds=4, json=path) == whole
    assert turning == [0, 1, 2, 3]
    # More seeds go on; rows of other code or sizes are made again.
    sweep.sweep(["made/turning"], seeds=5, json=path)
    assert turning[4:] == [4]
    monkeypatch.setattr(storage, "code_version", lambda: "another")
    sweep.sweep(["made/turning"], seeds=1, json=path)
    assert turning[5:] == [0]


@pytest.mark.parametrize("text", ["[]", "{}", '{"code": "x", "smoke": true, "rows": [{}]}', "x"])
def test_foreign_files_are_refused(turning, tmp_path, text):
    path = tmp_path / "seeds.json"
    path.write_text(text)
    with pytest.raises(storage.DamagedFile, match=r"seeds\.json"):
        sweep.sweep(["made/turning"], json=path)
    assert turning == []


@pytest.mark.slow
def test_processes_give_the_same_rows(tmp_path):
    found = {}
    for workers in (1, 2):
        path = tmp_path / f"{workers}.json"
        counts = sweep.sweep([STEP], seeds=2, workers=workers, json=path)
        rows = json.loads(path.read_text())["rows"]
        found[workers] = counts, sorted(rows, key=lambda row: row["seed"])
    assert found[1] == found[2]
