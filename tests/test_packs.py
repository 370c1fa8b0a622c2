"""Claims from outside, several processes, draws that are kept, and the contract of a claim."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Claim, Draws, Evidence, Finding, Paper, packs, values
from loraone_theory.claims.verdict import load
from loraone_theory.cli import main
from loraone_theory.testing import ContractError, check_claim

run = importlib.import_module("loraone_theory.claims.run")

STEP, FLOORS = "lora-one/linear/one-step", "lora-one/linear/floors/scale"
NAMES = [STEP, "lora-one/linear/lora-pro", "lora-one/theorem-3.3/second/n-16d", FLOORS]
PACK = """
import dataclasses
from loraone_theory.claims import CLAIMS as OF_THE_PACKAGE

STEP = OF_THE_PACKAGE["lora-one/linear/one-step"]
CLAIMS = tuple(
    dataclasses.replace(STEP, id=f"mine/{name}", aliases=(), long=name == "slow")
    for name in ("one", "two", "slow")
)
"""


@pytest.fixture
def pack(tmp_path):
    path = tmp_path / "my_claims.py"
    path.write_text(PACK)
    return path


def without_time(records):
    return [json.dumps(record | {"seconds": 0}) for record in records]


def test_a_file_of_claims_is_judged_alone_or_by_name(pack, tmp_path, capsys):
    assert packs.from_file(pack).id == "mine"
    ids = [v.id for v in lt.verify_all(source=pack, smoke=True)]
    assert ids == ["mine/one", "mine/two"]
    assert [v.id for v in lt.verify_all(source=pack, long=True, smoke=True)] == ["mine/slow"]
    both = lt.verify_all(["mine/two", STEP], source=pack, smoke=True)
    assert [v.id for v in both] == ["mine/two", STEP]
    assert both[0].numbers == both[1].numbers
    path = tmp_path / "verdicts.json"
    call = ["verify", "--smoke", "--json", str(path)]
    assert main([*call, "--from", str(pack), "--workers", "2"]) == 0
    assert [record["id"] for record in load(path)] == ["mine/one", "mine/two"]
    assert main([*call, "mine/one"]) == 2  # which is unknown without the file
    out = tmp_path / "checks.md"
    assert main(["report", "--json", str(path), "--out", str(out)]) == 0
    assert "## mine (`mine`)" in out.read_text()
    assert "claim must be one of" in capsys.readouterr().err


def test_packs_are_there_in_a_fresh_process(pack):
    code = f"import loraone_theory as lt; print(lt.claims.packs.from_file({str(pack)!r}).id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_a_mutant_that_is_not_found_out_is_said_to_be_the_fault(tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(f"{PACK}\nCLAIMS = [dataclasses.replace(CLAIMS[0], mutant=STEP.measure)]")
    assert main(["verify", "--smoke", "--from", str(path)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "mutant SUPPORTED (not found out, so that this check could not have failed):" in text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("1 / 0", ImportError, r"own\.py cannot be run: ZeroDivisionError"),
        ("x = 1", ValueError, r"must have CLAIMS = \(Claim"),
        ("CLAIMS = ()", ValueError, "must hold claims of the type Claim; got none"),
        ("CLAIMS = (1,)", ValueError, r"must hold claims of the type Claim; got \[1\]"),
        (f"{PACK}\nCLAIMS += (STEP,)", ValueError, "must begin with one paper; got lora-one, mine"),
        (f"{PACK}\nCLAIMS = (STEP,)", ValueError, f"'{STEP}' of '{STEP}' is one of"),
        (f"{PACK}\nCLAIMS *= 2", ValueError, "claims must have different names"),
    ],
)
def test_files_that_are_no_packs_are_named(tmp_path, text, error, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(error, match=message):
        lt.verify_all(source=path)


def test_absent_files_and_others_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        lt.verify_all(source=tmp_path / "nowhere.py")
    with pytest.raises(ValueError, match=r"must end in \.py"):
        lt.verify_all(source=tmp_path / "nowhere.txt")


class Point:
    """An entry point of a distribution that is not there."""

    name, value, dist = "mine", "somewhere:mine", None

    def __init__(self, load):
        self.load = load


@pytest.fixture
def install(monkeypatch):
    def install(load):
        packs._installed.cache_clear()
        packs._warn.cache_clear()
        monkeypatch.setattr(metadata, "entry_points", lambda group: [Point(load)])

    yield install
    packs._installed.cache_clear()


def test_installed_packs_are_known_everywhere(install, pack, capsys):
    paper = packs.from_file(pack)._replace(title="My notes", reference="a drawer")
    install(lambda: paper)
    assert lt.verify("mine/one", smoke=True).id == "mine/one"
    assert [v.id for v in lt.verify_all(paper="mine", smoke=True)] == ["mine/one", "mine/two"]
    assert main(["list", "--claims"]) == 0
    assert main(["describe", "mine/two"]) == 0
    assert "mine/slow" in capsys.readouterr().out
    assert packs.library().papers[-1] is paper
    assert "mine/one" not in CLAIMS


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: sys.exit("enough"), "SystemExit: enough"),
        (lambda: Paper("mine", "-", "-", ()), "ValueError: somewhere:mine must hold claims of the"),
        (
            lambda: of("mine/one", "mine/one"),
            "'mine/one' of 'mine/one' is one of 'mine/one' already",
        ),
        (lambda: of("mine/one", STEP), "must begin with one paper; got lora-one, mine"),
        (
            lambda: of(STEP),
            f"'{STEP}' of '{STEP}' is one of '{STEP}' already; the former is in 'mine'",
        ),
    ],
)
def test_an_installed_pack_that_is_broken_leaves_the_others_there(install, load, why, capsys):
    install(load)
    named = r"the pack of claims 'mine' \(somewhere:mine\) cannot be loaded: "
    with pytest.warns(UserWarning, match=f"{named}.*{re.escape(why)}") as warned:
        assert lt.verify(STEP, smoke=True).as_expected
    assert len(warned) == 1
    known = packs.library()  # and warns no more
    assert known.claims.keys() == CLAIMS.keys()
    assert known.origin == {}
    for call in (
        lambda: lt.verify("mine/one"),
        lambda: lt.verify_all(["mine/one"]),
        lambda: lt.verify_all(paper="mine"),
    ):
        with pytest.raises(ImportError, match=f"^{named}.*{re.escape(why)}"):
            call()
    with pytest.raises(ValueError, match=f"claim must be one of .*{named}"):
        lt.verify("notes/one")
    assert main(["verify", "mine/one"]) == 1
    assert why in " ".join(capsys.readouterr().err.split())
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "packs of claims" in text
    assert "cannot be loaded" in text


def of(*names):
    """A pack of claims of these ids."""
    step = dataclasses.replace(CLAIMS[STEP], aliases=())
    return SimpleNamespace(CLAIMS=[dataclasses.replace(step, id=name) for name in names])


def test_names_that_are_given_twice_are_named_with_both_homes(install, pack):
    install(lambda: of("mine/one"))
    homes = rf"the former is in {re.escape(str(pack))}, the latter in 'mine' \(somewhere:mine\)"
    with pytest.raises(ValueError, match=f"'mine/one' of 'mine/one' is one of .*{homes}"):
        lt.verify_all(source=pack)


def test_an_installed_pack_that_is_whole_is_listed_by_the_doctor(install, capsys):
    install(lambda: of("mine/one", "mine/two"))
    assert main(["doctor"]) == 0
    assert "'mine' (somewhere:mine) 2 claims" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_processes(tmp_path):
    """Sequential and parallel, records and draws."""
    found = {}
    for workers in (1, 2):
        path, folder = tmp_path / f"{workers}.json", tmp_path / f"{workers}"
        seen = []
        lt.verify_all(
            NAMES, smoke=True, json=path, draws=folder, workers=workers, report=seen.append
        )
        assert sorted(v.id for v in seen) == sorted(NAMES)
        arrays = [values.load(folder, record) for record in load(path)]
        kept = [{name: a.tobytes() for name, a in each.items()} for each in arrays]
        found[workers] = without_time(load(path)), kept
        assert sorted(p.name for p in tmp_path.iterdir())[:2] == ["1", "1.json"]
    assert found[1] == found[2]


@pytest.mark.parametrize(
    "name", [STEP, FLOORS, "lora-one/theorem-3.2/risk/beyond", "lora-one/equation-8"]
)
def test_the_worst_draw_can_be_seen_again(name, tmp_path):
    verdict = lt.verify(name, smoke=True, seed=3, draws=tmp_path)
    kept = values.load(tmp_path, verdict.to_record())
    claim, worst = CLAIMS[name], verdict.worst_draw
    gap = kept["lhs"] - kept["rhs"]
    gap = np.abs(gap) if claim.kind in ("identity", "value") else gap
    gap = np.where(kept["inside"], gap - kept["tolerance"], -np.inf)
    assert gap[worst["index"]] == gap.max()
    assert worst["lhs"] == kept["lhs"][worst["index"]]
    # Alone or among all, the draw gives that number, to the rounding of batched products.
    assert eval(worst["rerun"], {"lt": lt}) == pytest.approx(worst["lhs"], rel=values.SAME)
    evidence = claim.measure(Draws(claim.smoke_trials, 3, smoke=True))
    assert np.array_equal(kept["lhs"], evidence.lhs)
    broken = claim.mutant(Draws(claim.smoke_trials, 3, smoke=True))
    assert np.array_equal(kept["mutant_lhs"], broken.lhs)


def test_a_draw_alone_is_drawn_alone(tmp_path):
    """Seeds are one for each draw here, so the worst one needs no other."""
    verdict = lt.verify("lora-one/theorem-3.1", smoke=True, draws=tmp_path)
    index = verdict.worst_draw["index"]
    assert f"Draws(1, 0, smoke=True, first={index})).lhs[0]" in verdict.worst_draw["rerun"]
    kept = values.load(tmp_path, verdict.to_record())
    assert kept["seeds_0"].tolist() == list(Draws(verdict.trials, 0).seeds())
    assert Draws(1, 0, first=index).seeds() == Draws(verdict.trials, 0).seeds()[index : index + 1]


def test_draws_of_another_run_are_refused(tmp_path):
    first = lt.verify(STEP, smoke=True, draws=tmp_path)
    lt.verify(STEP, smoke=True, seed=1, draws=tmp_path)
    with pytest.raises(storage.DamagedFile, match="they are of another run"):
        values.load(tmp_path, first.to_record())
    assert not values.there(tmp_path, first.to_record())


def test_what_is_interrupted_is_taken_over_with_its_draws_only(tmp_path, monkeypatch):
    """A finished claim without its file of draws is judged again."""
    path, folder, real, asked = tmp_path / "v.json", tmp_path / "draws", run.verify, []
    names = [*NAMES[:2], FLOORS]

    def once(name, **options):
        asked.append(name)
        if asked == names:
            raise KeyboardInterrupt
        return real(name, **options)

    monkeypatch.setattr(run, "verify", once)
    with pytest.raises(KeyboardInterrupt):
        lt.verify_all(names, smoke=True, json=path, draws=folder)
    values.where(folder, STEP).unlink()
    lt.verify_all(names, smoke=True, json=path, draws=folder)
    assert asked == [*names, STEP, FLOORS]
    assert all(values.there(folder, record) for record in load(path))


def made(**changed):
    def measure(draws):
        rng = np.random.default_rng(draws.seed)
        return Evidence(rng.random(draws.trials), 1.0)

    def mutant(draws):
        return dataclasses.replace(measure(draws), rhs=0.0)

    given = {
        "id": "made/up", "title": "-", "reference": "-", "statement": "-", "hypotheses": ("-",),
        "how": "-", "kind": "bound", "measure": measure, "mutant_statement": "0 for 1",
        "mutant": mutant, "trials": 50, "smoke_trials": 10,
    }  # fmt: skip
    return Claim(**given | changed)


def gives(**parts):
    """A measurement whose evidence has these parts."""
    whole = {"lhs": np.zeros(5), "rhs": 1.0} | parts
    return lambda draws: Evidence(**whole)


def normals(draws):
    """One number a draw, of its master seed."""
    return draws.normals()


def kept(values):
    """What a claim keeps that leaves draws out as they come out."""
    return values[values > 0.1]


BROKEN = {
    "an id with blanks": ({"id": "made up"}, "must be 'paper/statement'"),
    "no statement": ({"statement": " "}, "must say its statement"),
    "an empty hypothesis": ({"hypotheses": ("",)}, "none of them empty"),
    "a kind that is none": ({"kind": "truth"}, "the kind of claim 'made/up'"),
    "no draws": ({"smoke_trials": 0}, "smoke_trials of claim 'made/up' must be >= 1"),
    "a violation without a reason": ({"expected": Finding.VIOLATED}, "must say why"),
    "a mutant that is the claim": ({"mutant": gives()}, "the check cannot fail; got SUPPORTED"),
    "a claim that fails": ({"measure": gives(rhs=-1.0)}, "must come out SUPPORTED; got VIOLATED"),
    "no evidence": ({"measure": lambda draws: 3}, "must return Evidence"),
    "one number for all draws": ({"measure": gives(lhs=0.5)}, r"lhs must have shape \(n,\)"),
    "no entry at all": ({"measure": gives(lhs=np.zeros(0))}, r"lhs of shape \(n,\), n >= 1"),
    "texts": ({"measure": gives(lhs=np.array(["a"]))}, "lhs must hold real numbers"),
    "hypotheses of other draws": ({"measure": gives(inside=[True] * 4)}, "inside must be one for"),
    "an infinite promise": ({"measure": gives(rhs=np.inf)}, "must promise finite numbers"),
    "a promise that is NaN": ({"mutant": gives(rhs=np.nan)}, "must promise finite numbers"),
    "an infinite tolerance": ({"measure": gives(tolerance=np.inf)}, "must have finite tolerances"),
    "a negative tolerance": ({"measure": gives(tolerance=-0.5)}, ">= 0; got -0.5 to -0.5"),
    "a mutant's tolerance": ({"mutant": gives(tolerance=-2.0)}, "mutant of .* finite tolerances"),
    "a mutant that is NaN": (
        {"mutant": gives(lhs=np.full(5, np.nan))},
        r"mutant of .* must be found out by numbers, not by NaN alone; .*none of 5 draws meets",
    ),
    "a mutant that is NaN here and there": (
        {"mutant": gives(lhs=np.array([0.0, np.nan, 0.0]))},
        "must be found out by numbers, .*it is SUPPORTED: holds on all 2 draws",
    ),
    "infinity less itself": (
        {"kind": "identity", "mutant": gives(lhs=np.full(5, np.inf), rhs=np.inf),
         "measure": gives(rhs=0.0)},
        "must be found out by numbers",
    ),
    "a violation by NaN": (
        {"expected": Finding.VIOLATED, "explanation": "-",
         "measure": gives(lhs=np.array([0.0, np.nan]))},
        "claim 'made/up' must come out VIOLATED by numbers, not by NaN alone",
    ),
    "draws that are left out": (
        {"measure": lambda draws: Evidence(kept(normals(draws)), 9.0)},
        "must not hang on what comes out: 4 draws give ., and . of another master seed",
    ),
    "fewer entries than draws": (
        {"kind": "value", "measure": lambda draws: Evidence(normals(draws)[::2], 0.0, True, 9.0),
         "mutant": lambda draws: Evidence(normals(draws), 99.0)},
        "must have an entry for each draw; got 2 of 4 draws, 5 of 10",
    ),
    "the same for every master seed": (
        {"kind": "value", "mutant": gives(rhs=9.0),
         "measure": lambda draws: Evidence(np.linspace(0, 1, draws.trials), 0.5, True, 9.0)},
        "must draw from its seeds: another master seed gave the same 4 numbers",
    ),
    "float32 that is float64": (
        {"dtypes": ("float64", "float32")}, "stated in float32 and must compute in it",
    ),
    "uses of no claim": ({"uses": ("lora-one/nothing",)}, "got lora-one/nothing in uses"),
    "uses of a former name": ({"uses": (STEP, "lora-one/T3.1")}, "got lora-one/T3.1 in uses"),
    "settings of other draws": ({"measure": gives(setting=np.zeros(4))}, "setting must be"),
    "no probability": ({"kind": "probability"}, "must state the promised probability"),
    "numbers that are arrays": ({"measure": gives(numbers={"x": np.ones(2)})}, "must be plain"),
    "global randomness": (
        {"measure": lambda draws: Evidence(np.random.rand(5), 1.0)},  # noqa: NPY002
        "must draw from the master seed alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_claims_are_caught(name):
    changed, message = BROKEN[name]
    with pytest.raises((ContractError, ValueError), match=message):
        check_claim(made(**changed))


def test_a_mutant_must_be_another_measurement():
    claim = made()
    with pytest.raises(ContractError, match="another measurement than the claim's own"):
        check_claim(dataclasses.replace(claim, mutant=claim.measure))


@pytest.mark.parametrize(
    "changed",
    [
        {"uses": (STEP, "made/other", "another/claim")},
        {"dtypes": ("float64", "float32"), "measure": lambda draws: Evidence(narrow(draws), 9.0)},
        {"kind": "probability", "measure": lambda draws: share(draws, 1.0),
         "mutant": lambda draws: share(draws, -1.0)},
        {"mutant": gives(lhs=np.array([2.0, np.nan]))},
        {"mutant": lambda draws: Evidence(np.ones(draws.trials), -np.inf)},
        {"measure": gives(rhs=np.array([1.0, np.inf]), lhs=np.zeros(2), inside=[True, False])},
    ],
)  # fmt: skip
def test_good_claims_of_other_kinds_pass(changed):
    check_claim(made(**changed))


def narrow(draws):
    return draws.normals().astype(draws.dtype)


def share(draws, level):
    """Zeros, which another master seed gives again."""
    return Evidence(np.zeros(draws.trials), level, probability=0.5)


def test_good_claims_pass_and_leave_the_global_states_alone():
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    check_claim(made())
    check_claim(CLAIMS[STEP], trials=3, seed=4)
    after = np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert after == (np.random.rand(), float(torch.rand(())))  # noqa: NPY002
