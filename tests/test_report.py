"""paper_checks.md is its rendering; `verify`, `report` and `bench` as commands."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from loraone_theory import storage
from loraone_theory.bench import page
from loraone_theory.claims import CLAIMS, PAPERS, Finding, Paper, report, stats
from loraone_theory.claims.run import Verdict
from loraone_theory.cli import main
from loraone_theory.cli import verify as command

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = ROOT / "records" / "verdicts.json"
FIRST = "lora-one/theorem-3.1"


def test_the_committed_report_is_the_rendering_of_the_committed_records():
    text = report.render(storage.load_json(VERDICTS), source="records/verdicts.json")
    assert (ROOT / "paper_checks.md").read_text(encoding="utf-8") == text


def test_the_committed_records_cover_every_claim_and_are_as_expected():
    verdicts = [Verdict.from_record(record) for record in storage.load_json(VERDICTS)]
    there = [verdict.id for verdict in verdicts]
    assert there == [name for name, claim in CLAIMS.items() if name in there or not claim.long]
    assert [verdict.id for verdict in verdicts if not verdict.as_expected] == []
    assert [v.id for v in verdicts if not (v.conclusive or CLAIMS[v.id].long)] == []
    assert not any(verdict.smoke for verdict in verdicts)


def test_the_committed_performance_page_is_the_rendering_of_its_rows():
    source = "benchmarks/results.json"
    card = storage.load_json(ROOT / "benchmarks" / "gpu.json")
    text = page.render(storage.load_json(ROOT / source), source=source, card=card)
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == text


def test_a_file_without_rows_is_that_of_no_card():
    rows = storage.load_json(ROOT / "benchmarks" / "results.json")
    source = "benchmarks/results.json"
    text = page.render(rows, source=source, card={"rows": []})
    assert text == page.render(rows, source=source)
    assert "No CUDA card has been timed" in text


def test_rows_are_rendered_without_timing(tmp_path, monkeypatch, capsys):
    """By --render-only, and what would time or has nothing to render is refused."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    render = ["bench", "--render-only", "--page", "made.md", "--json"]
    assert main([*render, "benchmarks/results.json"]) == 0
    assert Path("made.md").read_bytes() == (ROOT / "docs" / "performance.md").read_bytes()
    capsys.readouterr()
    for words, said in [
        ([*render, "benchmarks/results.json", "--tiny"], "times nothing"),
        (["bench", "relu", *render[1:], "benchmarks/results.json"], "times nothing"),
        (["bench", "--render-only", "--json", "benchmarks/results.json"], "give both"),
        ([*render, "absent.json"], "absent.json has no rows to render"),
    ]:
        assert main(words) == 2
        assert said in capsys.readouterr().err


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
    names = [FIRST, "lora-one/theorem-3.3", "lora-one/theorem-3.3/second/n-16d"]
    assert main(["verify", *names, "--smoke", "--json", "verdicts.json"]) == 0
    found = json.loads((quick / "verdicts.json").read_text())
    assert [record["id"] for record in found] == names
    assert [record["verdict"] for record in found] == ["SUPPORTED"] * 2 + ["OUTSIDE HYPOTHESES"]
    assert {record["mutant_verdict"] for record in found} == {"VIOLATED"}
    assert main(["report", "--json", "verdicts.json", "--out", "checks.md"]) == 0
    text = (quick / "checks.md").read_text()
    assert all(f"#### {name}: " in text for name in names)
    assert sorted(path.name for path in quick.iterdir()) == ["checks.md", "verdicts.json"]
    assert "SUPPORTED" in capsys.readouterr().out


@pytest.mark.parametrize("expected", [Finding.VIOLATED, Finding.SUPPORTED])
def test_verify_fails_when_a_verdict_is_unexpected(quick, monkeypatch, capsys, expected):
    """A claim that is known to be violated and stops being so is as much of a surprise."""
    changed = dataclasses.replace(CLAIMS[FIRST], expected=expected)
    monkeypatch.setitem(CLAIMS, FIRST, changed)
    code = main(["verify", FIRST, "--trials", "5"])
    assert code == (0 if expected is Finding.SUPPORTED else 1)
    assert ("expected VIOLATED" in capsys.readouterr().out) == (code == 1)


def test_verify_fails_when_a_mutant_survives(quick, monkeypatch, capsys):
    claim = CLAIMS[FIRST]
    monkeypatch.setitem(CLAIMS, FIRST, dataclasses.replace(claim, mutant=claim.measure))
    assert main(["verify", FIRST, "--trials", "5"]) == 1
    assert "mutant SUPPORTED" in capsys.readouterr().out


def test_verify_takes_a_paper_or_those_that_take_long(quick, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(command, "verify_all", lambda names, **_: asked.append(list(names)))
    long = dataclasses.replace(CLAIMS[FIRST], long=True)
    monkeypatch.setitem(CLAIMS, FIRST, long)
    monkeypatch.setitem(CLAIMS, "other/one", dataclasses.replace(long, id="other/one", long=False))
    for arguments in (["--paper", "other"], ["--long"], ["T3.1"]):
        assert main(["verify", *arguments]) == 0
    assert main(["verify"]) == 0
    slow = [name for name, claim in CLAIMS.items() if claim.long]
    assert FIRST in slow
    assert asked[:3] == [["other/one"], slow, [FIRST]]
    assert asked[3] == [name for name in CLAIMS if name not in slow]
    assert main(["verify", FIRST, "--long"]) == 2
    assert main(["verify", "--long", "--paper", "other"]) == 2
    assert main(["verify", "--paper", "lora-on"]) == 2
    errors = capsys.readouterr().err
    assert "no claim of paper 'other' that can be judged here takes long" in errors
    assert "claims must not be named together with paper or long" in errors
    known = ", ".join([*(paper.id for paper in PAPERS), "other"])
    assert f"paper must be one of {known}; got 'lora-on'; did you mean 'lora-one'?" in errors


def test_list_shows_claims_alone_and_describe_takes_former_names(capsys):
    assert main(["list", "--claims"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CLAIMS)
    assert "nesterov" not in text
    assert main(["describe", "T3.1"]) == 0
    assert FIRST in capsys.readouterr().out


def test_the_first_page_counts_and_lists():
    """Counts by paper and verdict, discrepancies, and what fails without a hypothesis, apart."""
    plain = storage.load_json(VERDICTS)[0] | {"expected": "SUPPORTED", "mutant_verdict": "VIOLATED"}

    def record(name, verdict, reference="Theorem 1"):
        about = plain["about"] | {
            "title": f"title of {name}", "reference": reference, "explanation": "Since so. And so."
        }  # fmt: skip
        return plain | {"id": name, "verdict": verdict, "expected": verdict, "about": about}

    records = [
        record("a/one", "SUPPORTED"), record("a/part/two", "VIOLATED"),
        record("a/three", "VIOLATED", "ours: without a condition"), record("b/one", "INCONCLUSIVE"),
    ]  # fmt: skip
    paper = Paper("a", "Paper A", "By them", (), sections={"part": "The second part"})
    text = report.render(records, source="x.json", papers=(paper,))
    first, _, rest = text.partition("## Paper A")
    assert "| 3 | 1 |  | 2 |  |  |" in first
    assert "| all | 4 | 1 |  | 2 | 1 |  |" in first
    assert "Every verdict is the expected one" in first
    found, _, dropped = first.partition("## What fails once a hypothesis is dropped")
    assert "title of a/part/two — Since so." in found
    assert "title of a/three" in dropped.partition("## What the level means")[0]
    assert f"{stats.draws_needed(0.99)} draws" in first
    assert [line for line in rest.splitlines() if line.startswith("##")] == [
        "#### a/one: title of a/one", "#### a/three: title of a/three",
        "### The second part", "#### a/part/two: title of a/part/two",
        "## b (`b`)", "#### b/one: title of b/one",
    ]  # fmt: skip
    odd = report.render([records[0] | {"expected": "VIOLATED"}], source="x.json", papers=(paper,))
    assert "**Against expectation** (claim or mutant): [a/one](" in odd


def test_bad_arguments_give_one_line_and_write_nothing(quick, capsys):
    assert main(["verify", "T9.9"]) == 2
    assert main(["verify", FIRST, "--json", "verdicts.txt"]) == 2
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
    rows = [line for line in text.splitlines() if line.startswith(f"| [{FIRST}")]
    assert len(rows) == 1
    assert "left \\| right" in rows[0]
