"""What a claim refuses when it is made, and a record whose verdict is of an unknown word."""

import dataclasses
import json

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Claim, Evidence, Finding, verdict
from loraone_theory.cli import main

STEP = "lora-one/linear/one-step"


def made(**changed):
    given = {
        "id": "made/up", "title": "-", "reference": "-", "statement": "-", "hypotheses": ("-",),
        "how": "-", "kind": "bound", "measure": lambda draws: Evidence(np.zeros(draws.trials), 1.0),
        "mutant_statement": "-", "mutant": lambda draws: Evidence(np.ones(draws.trials), 0.0),
        "trials": 5, "smoke_trials": 5,
    }  # fmt: skip
    return Claim(**given | changed)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"expected": "TRUE"}, ValueError, "what is expected of claim 'made/up' must be one of"),
        ({"expected": "SUPORTED"}, ValueError, "did you mean 'SUPPORTED'"),
        ({"expected": True}, TypeError, "what is expected of claim 'made/up' must be a string"),
        (
            {"kind": "bond"},
            ValueError,
            "the kind of claim 'made/up' must be .*did you mean 'bound'",
        ),
        ({"kind": None}, TypeError, "the kind of claim 'made/up' must be a string"),
        (
            {"hypotheses": ("-")},
            TypeError,
            r"^hypotheses of claim 'made/up' must be a tuple of.*'-'",
        ),
        ({"aliases": "T1"}, TypeError, r"with a comma after a single one: \('...',\); got 'T1'"),
        ({"uses": STEP}, TypeError, "^uses of claim 'made/up' must be a tuple of texts"),
        ({"dtypes": "float32"}, TypeError, "^dtypes of claim 'made/up' must be a tuple of texts"),
        ({"devices": "cuda"}, TypeError, "^devices of claim 'made/up' must be a tuple of texts"),
        ({"hypotheses": (1,)}, TypeError, r"hypotheses of claim 'made/up' must be .*got \(1,\)"),
        ({"hypotheses": None}, TypeError, "hypotheses of claim 'made/up' must be .*got None"),
        ({"dtypes": ("float16",)}, ValueError, "each of dtypes of claim 'made/up' must be one of"),
        ({"extra": "certfy"}, ValueError, "of claim 'made/up' must be .*did you mean 'certify'"),
        ({"extra": None}, TypeError, "each of extra of claim 'made/up' must be a string"),
        ({"trials": 0}, ValueError, "trials of claim 'made/up' must be >= 1"),
        ({"smoke_trials": 2.5}, TypeError, "smoke_trials of claim 'made/up' must be an integer"),
        ({"cap": True}, TypeError, "cap of claim 'made/up' must be an integer"),
        ({"measure": 3}, TypeError, "measure of claim 'made/up' must be callable"),
        ({"mutant": None}, TypeError, "mutant of claim 'made/up' must be callable"),
    ],
)
def test_what_is_no_claim_is_refused_when_it_is_made(changed, error, message):
    with pytest.raises(error, match=message):
        made(**changed)


def test_a_text_stands_for_its_finding_and_a_list_for_its_tuple():
    claim = made(expected="VIOLATED", hypotheses=["a", "b"], explanation="-")
    assert claim.expected is Finding.VIOLATED
    assert claim.hypotheses == ("a", "b")
    assert lt.verify(made(expected="SUPPORTED")).as_expected
    assert made(dtypes=("float64", "float32"), extra="certify", cap=9).cap == 9


def test_every_claim_of_the_package_can_be_made_again():
    for claim in CLAIMS.values():
        assert dataclasses.replace(claim).expected is claim.expected


@pytest.mark.parametrize("name", ["verdict", "mutant_verdict", "expected"])
@pytest.mark.parametrize("file", ["v.json", "v.partial.json"])
def test_an_unknown_verdict_is_named_with_its_claim(name, file, tmp_path, capsys):
    record = lt.verify(STEP, smoke=True).to_record() | {name: "REFUTED"}
    kept = [record] if file == "v.json" else [{"run": {}, "record": record}]
    (tmp_path / file).write_text(json.dumps(kept))
    assert main(["verify", STEP, "--json", str(tmp_path / "v.json")]) == 2
    error = capsys.readouterr().err
    assert f"{name} of claim '{STEP}' must be one of SUPPORTED, CERTIFIED" in error
    assert "got 'REFUTED'" in error
    assert file in error
    assert "damaged" not in error


def test_other_damage_is_damage(tmp_path):
    record = lt.verify(STEP, smoke=True).to_record()
    for changed in ({"verdict": 3}, {"more": 1}):
        (tmp_path / "v.json").write_text(json.dumps([record | changed]))
        with pytest.raises(storage.DamagedFile, match="it is damaged"):
            verdict.load(tmp_path / "v.json")
