"""`verify` and `verify_all`: what is covered, what is kept, and what seeds draw."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.claims import CLAIMS, PAPERS, Claim, Draws, Evidence, Finding, packs
from loraone_theory.claims.registry import Registry
from loraone_theory.claims.verdict import Store, load

verify = importlib.import_module("loraone_theory.claims.run")

# Former ids: rows of the paper's claims, of what is proved beyond them, of the discrepancies.
ROWS = (
    "T3.1", "T3.2", "T3.2-proof", "Eq. 8", "T3.3", "App. C.2", "App. C.3", "Sec. 2.3", "L-D.2",
    "L-D.5", "T4.2", "Fig. 3", "Fig. 4", "Alg. 1",
    *(f"3.{i}" for i in range(1, 10)),
    *(f"4.{i}" for i in range(1, 9)),
    *(f"5.{i}" for i in range(1, 9)),
)  # fmt: skip

MASTER_SEEDS = range(20)
FIRST, OUTSIDE = "lora-one/theorem-3.1", "lora-one/theorem-3.3/second/n-16d"
STEP, PRO = "lora-one/linear/one-step", "lora-one/linear/lora-pro"


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_claim_under_its_former_name(row):
    claim = CLAIMS.find(row)
    assert row in claim.aliases
    assert claim.id in CLAIMS
    assert CLAIMS[row] is CLAIMS[CLAIMS.current(row)] is claim


@pytest.mark.parametrize("name", list(CLAIMS))
def test_every_claim_is_complete(name):
    claim = CLAIMS[name]
    assert claim.id == name
    assert claim.paper in {paper.id for paper in PAPERS}
    for text in (claim.title, claim.reference, claim.statement, claim.how, claim.mutant_statement):
        assert text.strip()
    assert all(text.strip() for text in claim.hypotheses)
    assert callable(claim.mutant)
    assert claim.mutant is not claim.measure
    assert min(claim.trials, claim.smoke_trials) >= 1
    assert claim.explanation or claim.expected in (Finding.SUPPORTED, Finding.CERTIFIED)


def test_master_seeds_draw_different_instances():
    drawn = [Draws(50, seed).seeds(block=block) for seed in MASTER_SEEDS for block in range(3)]
    assert len(set().union(*drawn)) == 50 * len(drawn)
    assert Draws(3, 1).seeds(2) == Draws(2, 1).seeds()


def test_verdicts_repeat_and_depend_on_the_master_seed():
    first, again, other = (lt.verify(STEP, smoke=True, seed=seed) for seed in (0, 0, 1))
    assert without_time(first) == without_time(again)
    assert first.numbers != other.numbers


def test_papers_are_folders_and_ids_begin_with_them():
    for paper in PAPERS:
        assert paper.claims
        assert {claim.paper for claim in paper.claims} == {paper.id}
        folder = f"claims.{paper.id.replace('-', '_')}."
        assert all(folder in file.__name__ for file in paper.files)
        used = {paper.section(claim.id) for claim in paper.claims} - {""}
        assert used == set(paper.sections.values())


@pytest.mark.parametrize(
    "name", ["T3.1", "a", "a/B", "a/", "/a", "a//b", "a/b c", "a/κ", "a/-b", "a/b-", "a/b..c", ""]
)
def test_ids_are_plain(name):
    with pytest.raises(ValueError, match="must be 'paper/statement'"):
        Registry([dataclasses.replace(CLAIMS[FIRST], id=name)])
    assert list(Registry([dataclasses.replace(CLAIMS[FIRST], id="a-1/b.2/c")])) == ["a-1/b.2/c"]


@pytest.mark.parametrize("changed", [{"id": "a/b"}, {"id": FIRST, "aliases": ("x",)}])
def test_names_are_given_once(changed):
    claim = CLAIMS[FIRST]
    with pytest.raises(ValueError, match=r"is one of 'lora-one/theorem-3\.1' already"):
        Registry([claim, dataclasses.replace(claim, **changed)])


@pytest.mark.parametrize("name", ["trials", "smoke_trials", "cap"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_claim_draws_at_least_once(name, value):
    """None doubled is none: such a claim would be drawn for ever."""
    with pytest.raises((ValueError, TypeError), match=f"^{name} of claim '{FIRST}' must be"):
        dataclasses.replace(CLAIMS[FIRST], **{name: value})


def test_former_names_are_accepted_everywhere(tmp_path):
    assert lt.verify("T3.1", trials=3).id == FIRST
    path = tmp_path / "verdicts.json"
    (found,) = lt.verify_all(["T3.1", FIRST], trials=3, json=path)
    assert found.id == FIRST
    # A file of former ids: read under those of today, and merged with them.
    records = json.loads(path.read_text())
    storage.save_json(path, [records[0] | {"id": "T3.1"}])
    assert lt.Verdict.from_record(json.loads(path.read_text())[0]).id == FIRST
    assert [record["id"] for record in load(path)] == [FIRST]
    lt.verify_all([STEP], smoke=True, json=path)
    assert ids(path) == [FIRST, STEP]


def test_arguments_are_passed_on():
    verdict = lt.verify(STEP, trials=7, confidence=0.9, seed=5)
    # Two step sizes for each of the seven instances.
    assert (verdict.requested, verdict.trials, verdict.inside) == (7, 14, 14)
    assert (verdict.confidence, verdict.seed, verdict.smoke) == (0.9, 5, False)
    assert str(verdict) == "SUPPORTED"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lt.verify("T3.11"), ValueError, r"claim must be one of .*did you mean 'T3.1'\?"),
        (lambda: lt.verify_all([FIRST, "nothing"]), ValueError, "got 'nothing'"),
        (lambda: lt.verify(FIRST, trials=0), ValueError, "trials must be >= 1"),
        (lambda: lt.verify(FIRST, trials=2.5), TypeError, "trials must be an integer"),
        (lambda: lt.verify(FIRST, seed=-1), ValueError, "seed must be >= 0"),
        (lambda: lt.verify(FIRST, confidence=2), ValueError, "strictly between 0 and 1"),
        (lambda: lt.verify_all([FIRST], confidence=True), TypeError, "confidence must be a num"),
        (lambda: lt.verify(FIRST, smoke=1), TypeError, "smoke must be True or False"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_unknown_ids_are_refused_before_anything_is_measured(monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("measured")

    monkeypatch.setattr(verify, "verify", never)
    with pytest.raises(ValueError, match="claim must be one of"):
        lt.verify_all([STEP, "3.44444"])


def made(lhs, *, mutant=2.0, expected=Finding.SUPPORTED, kind="bound", probability=None):
    """A claim that measures `lhs` against 1."""

    def measure(value):
        return lambda draws: Evidence(
            np.full(draws.trials, value), 1.0, probability=probability, numbers={"lhs": value}
        )

    return Claim(
        id="made/up", title="-", reference="-", statement="-", hypotheses=("-",), how="-",
        kind=kind,
        measure=measure(lhs), mutant_statement="-", mutant=measure(mutant), trials=1000,
        smoke_trials=10, expected=expected,
    )  # fmt: skip


def test_expected_violations_and_undiscovered_mutants():
    assert lt.verify(made(0.5)).as_expected
    assert not lt.verify(made(1.5)).as_expected
    assert lt.verify(made(1.5, expected=Finding.VIOLATED)).as_expected
    # A violation that has gone is not as expected either, and neither is a mutant that passes.
    assert not lt.verify(made(0.5, expected=Finding.VIOLATED)).as_expected
    assert not lt.verify(made(0.5, mutant=0.5)).as_expected


def test_a_smoke_run_may_leave_a_probability_open_but_a_full_one_may_not():
    claim = made(0.5, kind="probability", probability=0.99)
    smoke, short = lt.verify(claim, smoke=True), lt.verify(claim, trials=10)
    assert smoke.finding is short.finding is Finding.INCONCLUSIVE
    assert smoke.as_expected
    assert not short.as_expected
    # Its mutant must be found out even then.
    escaped = dataclasses.replace(claim, mutant=claim.measure)
    assert not lt.verify(escaped, smoke=True).as_expected
    assert lt.verify(claim).finding is Finding.SUPPORTED


def without_time(verdict):
    # As it is written to disk; text, so that NaN equals NaN.
    return json.dumps(dataclasses.replace(verdict, seconds=0.0).to_record())


place = list(CLAIMS).index
QUICK = [STEP, "lora-one/linear/one-step/balance", PRO, OUTSIDE, "lora-one/linear/floors/scale"]


def test_an_interrupted_run_continues_and_ends_with_the_same_records(tmp_path, monkeypatch):
    whole = [without_time(v) for v in lt.verify_all(QUICK, smoke=True)]
    progress, measured, real = tmp_path / "verdicts.json", [], verify.verify
    partial = tmp_path / "verdicts.partial.json"

    def counting(name, **options):
        if name == PRO and name not in measured:
            measured.append(name)
            raise KeyboardInterrupt
        measured.append(name)
        return real(name, **options)

    monkeypatch.setattr(verify, "verify", counting)
    reported = []
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(QUICK, smoke=True, json=progress, report=reported.append)
    assert [v.id for v in reported] == QUICK[:2]
    assert partial.exists()
    assert not progress.exists()

    resumed = lt.verify_all(QUICK, smoke=True, json=progress, report=reported.append)
    assert [without_time(v) for v in resumed] == whole
    assert measured == [*QUICK[:3], *QUICK[2:]]
    # All of them are reported again, those taken over included, in the order asked for.
    assert [v.id for v in reported[2:]] == QUICK
    assert not partial.exists()
    assert [r["id"] for r in json.loads(progress.read_text())] == sorted(QUICK, key=place)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"trials": 4}, {"smoke": False, "trials": 3}])
def test_progress_of_another_run_is_not_taken_over(tmp_path, changed, monkeypatch):
    progress, real, stopped = tmp_path / "verdicts.json", verify.verify, []

    def stop_once(name, **options):
        if name == PRO and not stopped:
            stopped.append(name)
            raise KeyboardInterrupt
        return real(name, **options)

    monkeypatch.setattr(verify, "verify", stop_once)
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all([STEP, PRO], smoke=True, json=progress)
    options = {"smoke": True} | changed
    found = lt.verify_all([STEP, PRO], json=progress, **options)
    expected = [real(name, **options) for name in (STEP, PRO)]
    assert [without_time(v) for v in found] == [without_time(v) for v in expected]


@pytest.mark.parametrize("name", [STEP, OUTSIDE])
def test_records_and_verdicts_convert_both_ways(name):
    verdict = lt.verify(name, smoke=True)
    record = verdict.to_record()
    assert record["id"] == name
    assert record["verdict"] == verdict.finding.value
    assert record["mutant_verdict"] == "VIOLATED"
    assert repr(lt.Verdict.from_record(record)) == repr(verdict)


def ids(path):
    return [record["id"] for record in json.loads(path.read_text())]


def test_claims_that_take_long_are_judged_when_asked_for(monkeypatch):
    slow = dataclasses.replace(CLAIMS[PRO], long=True)
    monkeypatch.setattr(packs, "CLAIMS", Registry([CLAIMS[STEP], slow]))
    assert [v.id for v in lt.verify_all(smoke=True)] == [STEP]
    assert [v.id for v in lt.verify_all(smoke=True, long=True)] == [PRO]
    assert [v.id for v in lt.verify_all([PRO, STEP], smoke=True)] == [PRO, STEP]


def test_records_of_other_claims_stay_in_the_file(tmp_path):
    path = tmp_path / "verdicts.json"
    lt.verify_all([STEP, PRO], smoke=True, json=path)
    before = {record["id"]: record for record in json.loads(path.read_text())}
    lt.verify_all([PRO], smoke=True, seed=1, json=path)
    after = {record["id"]: record for record in json.loads(path.read_text())}
    assert ids(path) == [STEP, PRO]
    assert after[STEP] == before[STEP]
    assert after[PRO]["seed"] == 1


def test_progress_of_other_code_is_not_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.json"
    older = Store(path, {"trials": None, "confidence": 0.99, "seed": 0, "smoke": True})
    older.run["code"] = "older"
    older.keep(dataclasses.replace(lt.verify(STEP, smoke=True), reason="of older code"))
    (found,) = lt.verify_all([STEP], smoke=True, json=path)
    assert found.reason != "of older code"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["verdicts.json"]


def test_finished_claims_of_an_unfinished_run_survive_a_shorter_one(tmp_path):
    path, asked = tmp_path / "verdicts.json", {"trials": None, "confidence": 0.99, "seed": 0}
    Store(path, asked | {"smoke": True}).keep(lt.verify(PRO, smoke=True))
    lt.verify_all([STEP], smoke=True, json=path)
    lt.verify_all([STEP], trials=2, json=path)
    assert ids(path) == [STEP]
    assert list(Store(path, asked | {"smoke": True}).done) == [PRO]


def test_progress_stays_until_the_file_is_there(tmp_path, monkeypatch):
    path, real = tmp_path / "verdicts.json", storage.save_json

    def full(where, value):
        if where == path:
            raise OSError(28, "No space left on device")
        real(where, value)

    monkeypatch.setattr(storage, "save_json", full)
    with pytest.raises(OSError, match="No space left"):
        lt.verify_all([STEP], smoke=True, json=path)
    monkeypatch.undo()
    monkeypatch.setattr(verify, "verify", None)  # nothing is measured again
    assert [str(v) for v in lt.verify_all([STEP], smoke=True, json=path)] == ["SUPPORTED"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "3.4"}]', '{"rows": []}', "null"])
@pytest.mark.parametrize("name", ["verdicts.json", "verdicts.partial.json"])
def test_foreign_files_are_refused_before_anything_is_measured(tmp_path, monkeypatch, text, name):
    monkeypatch.setattr(verify, "verify", None)
    (tmp_path / name).write_text(text)
    with pytest.raises(storage.DamagedFile, match=name):
        lt.verify_all([STEP], json=tmp_path / "verdicts.json")
