"""A claim that raises, or whose evidence is malformed, is named; nothing is written of it."""

import json
import re
import warnings

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory.claims import Evidence, judge, sweep
from loraone_theory.claims.verdict import load
from loraone_theory.cli import main
from loraone_theory.core.faults import BrokenClaim

FILE = """
import numpy as np
from loraone_theory.claims import Claim, Evidence

def fine(level):
    return lambda draws: Evidence(np.full(draws.trials, level), 1.0)

def claim(name, **changed):
    given = dict(
        id=f"mine/{{name}}", title="-", reference="-", statement="-", hypotheses=("-",), how="-",
        kind="bound", measure=fine(0.5), mutant_statement="-", mutant=fine(2.0), trials=5,
        smoke_trials=5)
    return Claim(**given | changed)

def broken(draws):
    {fault}

CLAIMS = (claim("first"), claim("second", {part}=broken), claim("third"))
"""
FAULTS = {
    "raise KeyError('x')": r"it raised KeyError: 'x'",
    "np.ones(3) + np.ones(4)": "it raised ValueError: operands could not be broadcast",
    "raise SystemExit(3)": "it raised SystemExit: 3",
    "return 3": "cannot be judged: evidence must be a Evidence; got 3",
    "return Evidence(np.zeros((5, 2)), 1.0)": r"cannot be judged: lhs must have shape \(n,\)",
}


@pytest.fixture(params=FAULTS)
def fault(request):
    return request.param


@pytest.mark.parametrize("part", ["measure", "mutant"])
def test_a_claim_that_raises_is_named_and_what_was_finished_is_kept(fault, part, tmp_path, capsys):
    source, path = tmp_path / "own.py", tmp_path / "v.json"
    source.write_text(FILE.format(fault=fault, part=part))
    who = "claim" if part == "measure" else "the mutant of claim"
    words = rf"^{who} 'mine/second' \({re.escape(str(source))}\) .*{FAULTS[fault]}"
    with pytest.raises(BrokenClaim, match=words) as caught:
        lt.verify_all(source=source, json=path)
    assert caught.value.__cause__ is not None
    (entry,) = json.loads((tmp_path / "v.partial.json").read_text())
    assert entry["record"]["id"] == "mine/first"
    assert not path.exists()
    assert main(["verify", "--from", str(source), "--json", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {who} 'mine/second'")
    assert error.count("\n") == 1
    # Mended, it goes on; and by name the others can be judged as it is.
    lt.verify_all(["mine/first", "mine/third"], source=source, json=path)
    assert [record["id"] for record in load(path)] == ["mine/first", "mine/third"]


@pytest.mark.slow
def test_a_claim_that_raises_in_another_process_is_named(tmp_path, capsys):
    source = tmp_path / "own.py"
    source.write_text(FILE.format(fault="raise KeyError('x')", part="mutant"))
    assert main(["verify", "--from", str(source), "--workers", "2"]) == 1
    assert "the mutant of claim 'mine/second'" in capsys.readouterr().err


def test_a_claim_that_raises_at_one_master_seed_is_named(monkeypatch, tmp_path, capsys):
    made = lt.claims.CLAIMS["lora-one/linear/one-step"]

    def measure(draws):
        if draws.seed == 2:
            raise ZeroDivisionError("of the third")
        return made.measure(draws)

    changed = {"id": "made/raising", "aliases": (), "measure": measure}
    monkeypatch.setitem(lt.claims.CLAIMS, "made/raising", _replaced(made, **changed))
    path = tmp_path / "rows.json"
    call = ["verify-seeds", "made/raising", "--seeds", "4", "--json", str(path)]
    assert main(call) == 1
    error = capsys.readouterr().err
    assert "claim 'made/raising' " in error
    assert "of master seed 2 it raised ZeroDivisionError: of the third" in error
    assert [row.seed for row in sweep.load(path)] == [0, 1]


def _replaced(claim, **changed):
    return type(claim)(**{**{n: getattr(claim, n) for n in claim.__dataclass_fields__}, **changed})


def gives(**parts):
    return Evidence(**{"lhs": np.zeros(4), "rhs": 1.0, **parts})


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"lhs": np.zeros((4, 2))}, ValueError, r"lhs must have shape \(n,\).*got \(4, 2\)"),
        ({"lhs": 0.5}, ValueError, r"lhs must have shape \(n,\).*got \(\)"),
        ({"lhs": np.zeros(4, dtype=complex)}, TypeError, "lhs must hold real numbers; .*complex"),
        ({"lhs": np.array(["0"] * 4)}, TypeError, "lhs must hold real numbers"),
        ({"lhs": np.array([None] * 4)}, TypeError, "lhs must hold real numbers; .*object"),
        ({"rhs": np.ones(3)}, ValueError, r"rhs must be one for all draws or one per draw, \(4,\)"),
        ({"rhs": np.ones((4, 1))}, ValueError, r"rhs must be .*got shape \(4, 1\)"),
        ({"rhs": 1j}, TypeError, "rhs must hold real numbers"),
        ({"tolerance": np.ones(1)}, ValueError, r"tolerance must be .*got shape \(1,\)"),
        ({"tolerance": "1"}, TypeError, "tolerance must hold real numbers"),
        ({"inside": [True] * 3}, ValueError, r"inside must be .*got shape \(3,\)"),
        ({"inside": np.ones(4)}, TypeError, "inside must hold booleans; .*float64"),
        ({"setting": np.zeros(3)}, ValueError, r"setting must be one per draw, \(4,\)"),
        ({"probability": 1.5}, ValueError, "probability must lie between 0 and 1; got 1.5"),
        ({"probability": float("nan")}, ValueError, "probability must lie between 0 and 1"),
        ({"numbers": {"x": np.ones(2)}}, TypeError, "must be plain: .* ndarray for 'x'"),
        ({"numbers": {"x": 1j}}, TypeError, "must be plain: .* complex for 'x'"),
        ({"numbers": {"x": None}}, TypeError, "must be plain: .* NoneType for 'x'"),
    ],
)
@pytest.mark.parametrize("kind", ["identity", "bound", "probability", "value"])
def test_malformed_evidence_is_refused_by_the_judge(parts, error, message, kind):
    given = {"probability": 0.5, **parts}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            judge(gives(**given), kind)


@pytest.mark.parametrize(
    "parts",
    [
        {"lhs": [0, 0, 0, 0]},
        {"lhs": np.zeros(4, dtype=bool), "rhs": np.float32(1)},
        {"inside": [1, 1, 0, 1], "tolerance": 0},
        {"numbers": {"a": 1, "b": 0.5, "c": "x", "d": True, "e": np.float64(2), "f": np.bool_(0)}},
    ],
)
def test_whole_evidence_is_judged(parts):
    assert judge(gives(**parts), "bound").finding == "SUPPORTED"
