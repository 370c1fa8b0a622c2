"""paper_checks.md is its rendering; `verify`, `report` and `bench` as commands."""

import dataclasses
import json
from pathlib import Path

import pytest

from loraone_theory import storage
from loraone_theory.bench import page
from loraone_theory.claims import CLAIMS, Finding, report
from loraone_theory.claims.run import Verdict
from loraone_theory.cli import main

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = ROOT / "records" / "verdicts.json"


def test_the_committed_report_is_the_rendering_of_the_committed_records():
    text = report.render(storage.load_json(VERDICTS), source="records/verdicts.json")
    assert (ROOT / "paper_checks.md").read_text(encoding="utf-8") == text


def test_the_committed_records_cover_every_claim_and_are_as_expected():
    verdicts = [Verdict.from_record(record) for record in storage.load_json(VERDICTS)]
    assert [verdict.id for verdict in verdicts] == list(CLAIMS)
    assert [verdict.id for verdict in verdicts if not verdict.as_expected] == []
    assert [verdict.id for verdict in verdicts if not verdict.conclusive] == []
    assert not any(verdict.smoke for verdict in verdicts)


def test_the_committed_performance_page_is_the_rendering_of_its_rows():
    source = "benchmarks/results.json"
    card = storage.load_json(ROOT / "benchmarks" / "gpu.json")
    text = page.render(storage.load_json(ROOT / source), source=source, card=card)
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == text


def test_pictures_of_claims_exist():
    named = {claim.figure for claim in CLAIMS.values() if claim.figure}
    assert named
    assert sorted(name for name in named if not (ROOT / "figures" / name).is_file()) == []


def test_records_hold_what_scripts_read():
    for record in storage.load_json(VERDICTS):
        assert {"id", "verdict", "expected", "trials", "confidence", "mutant_verdict"} <= set(
            record
        )


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_verify_writes_verdicts_and_report_renders_them(quick, capsys):
    names = ["T3.1", "T3.3", "T3.3/second at N = 16d"]
    assert main(["verify", *names, "--smoke", "--json", "verdicts.json"]) == 0
    found = json.loads((quick / "verdicts.json").read_text())
    assert [record["id"] for record in found] == names
    assert [record["verdict"] for record in found] == ["SUPPORTED"] * 2 + ["OUTSIDE HYPOTHESES"]
    assert {record["mutant_verdict"] for record in found} == {"VIOLATED"}
    assert main(["report", "--json", "verdicts.json", "--out", "checks.md"]) == 0
    text = (quick / "checks.md").read_text()
    assert all(f"### {name}: " in text for name in names)
    assert sorted(path.name for path in quick.iterdir()) == ["checks.md", "verdicts.json"]
    assert "SUPPORTED" in capsys.readouterr().out


@pytest.mark.parametrize("expected", [Finding.VIOLATED, Finding.SUPPORTED])
def test_verify_fails_when_a_verdict_is_unexpected(quick, monkeypatch, capsys, expected):
    """A claim that is known to be violated and stops being so is as much of a surprise."""
    changed = dataclasses.replace(CLAIMS["T3.1"], expected=expected)
    monkeypatch.setitem(CLAIMS, "T3.1", changed)
    code = main(["verify", "T3.1", "--trials", "5"])
    assert code == (0 if expected is Finding.SUPPORTED else 1)
    assert ("expected VIOLATED" in capsys.readouterr().out) == (code == 1)


def test_verify_fails_when_a_mutant_survives(quick, monkeypatch, capsys):
    claim = CLAIMS["T3.1"]
    monkeypatch.setitem(CLAIMS, "T3.1", dataclasses.replace(claim, mutant=claim.measure))
    assert main(["verify", "T3.1", "--trials", "5"]) == 1
    assert "mutant SUPPORTED" in capsys.readouterr().out


def test_bad_arguments_give_one_line_and_write_nothing(quick, capsys):
    assert main(["verify", "T9.9"]) == 2
    assert main(["verify", "T3.1", "--json", "verdicts.txt"]) == 2
    assert main(["report", "--json", "absent.json"]) == 2
    assert main(["bench", "notebok"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 4
    assert "did you mean 'notebook'" in lines[3]
    assert list(quick.iterdir()) == []


def test_texts_of_records_cannot_change_the_page() -> None:
    record = storage.load_json(VERDICTS)[0]
    record["reason"] = "a <script>alert(1)</script>\n\n# Heading\n| cell |"
    record["about"]["title"] = "left | right\n## More"
    record["numbers"] = {"x | y <b>": 1.0}
    text = report.render([record], source="x.json")
    assert "<script>" not in text
    assert "<b>" not in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert not any(line.startswith(("# Heading", "## More")) for line in headings)
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == 1
    assert "left \\| right" in rows[0]
