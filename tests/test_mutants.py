"""The mutation script finds the right changes, and the faults that once went unnoticed are noticed.

`make mutants` tries every mutant of the numerical core; this is a sample of it.
"""

import json
import subprocess
import sys

import mutant_runs
import mutants
import pytest

SOURCE = '''
"""Not 1 < 2."""
LIMIT = 1e-2

def f(x: "1 + 1" = 3) -> "2 * 2":
    """5 > 4."""
    for x, y in zip([x], [x], strict=True):
        x = x * 0.0
    if not x or x <= LIMIT:
        raise ValueError(f"{1 + 1}")
    return min(-x, 2) - x
'''


def found() -> set[tuple[str, str]]:
    made = mutants.mutants_of("core/f.py", SOURCE, ("test_f.py",))
    assert len({mutant.name for mutant in made}) == len(made)
    names = [mutant.name.removeprefix("core/f.py::").rsplit(": ", 1)[1] for mutant in made]
    return {tuple(name.split(" -> ")) for name in names}


def test_every_kind_of_change_is_made_and_nothing_that_only_talks_is_touched() -> None:
    assert found() == {
        *(("1e-2", f"(0.01 * {factor})") for factor in ("0.9", "1.1", "1e6")),
        ("x * 0.0", "((x) / (0.0))"), ("x * 0.0", "(x)"), ("x * 0.0", "(0.0)"), ("0.0", "1.0"),
        ("3", "(4)"), ("3", "(2)"), ("2", "(3)"), ("2", "(1)"),
        ("not x", "(x)"), ("not x or x <= LIMIT", "((not x) and (x <= LIMIT))"),
        ("x <= LIMIT", "((x) < (LIMIT))"), ("x <= LIMIT", "((x) > (LIMIT))"),
        ("x <= LIMIT", "True"), ("x <= LIMIT", "False"),
        ("-x", "(x)"), ("min(-x, 2)", "max(-x, 2)"),
        ("min(-x, 2) - x", "((min(-x, 2)) + (x))"), ("min(-x, 2) - x", "(min(-x, 2))"),
    }  # fmt: skip


def test_a_change_stands_where_it_says_behind_letters_of_two_bytes() -> None:
    (first, *_) = mutants.mutants_of("core/f.py", "λ = 'Σ' * (μ + ν)\n", ())
    assert first.source == "λ = (('Σ') / (μ + ν))\n"
    assert first.name == "core/f.py::: λ = 'Σ' * (μ + ν): 'Σ' * (μ + ν) -> (('Σ') / (μ + ν))"


def test_the_tests_that_call_what_was_changed_run_alone_and_the_quick_ones_first() -> None:
    suite = object.__new__(mutant_runs.Suite)
    suite.known = {
        "tests/test_f.py::slow": mutant_runs.Test(2.0, frozenset({"core/f.py::f.g"})),
        "tests/test_f.py::quick": mutant_runs.Test(1.0, frozenset({"core/f.py::f"})),
        "tests/test_f.py::another": mutant_runs.Test(0.1, frozenset({"core/f.py::fg"})),
        "tests/test_e.py::other_file": mutant_runs.Test(0.1, frozenset({"core/f.py::f"})),
    }
    inside = mutants.Mutant("core/f.py", "", "", ("test_f.py",), "f")
    assert suite.of(inside) == ["tests/test_f.py::quick", "tests/test_f.py::slow"]
    assert len(suite.of(inside._replace(where="Unseen"))) == 3
    assert len(suite.of(inside._replace(where=""))) == 3


def test_every_target_and_its_tests_exist() -> None:
    for file, tests in mutants.TARGETS.items():
        assert (mutants.ROOT / mutants.PACKAGE / file).is_file(), file
        assert all((mutants.ROOT / "tests" / test).is_file() for test in tests), file


def test_the_survivors_that_are_argued_are_mutants_of_today_and_have_a_reason() -> None:
    """A line that changed takes its argument with it: look again."""
    known = [mutant.name for mutant in mutants.every()]
    gone = [key for key in mutants.argued() if not any(name.startswith(key) for name in known)]
    assert gone == []
    assert all(len(reason.split()) >= 5 for reason in mutants.argued().values())


def test_what_was_tried_adds_up() -> None:
    """For files of TARGETS; numbers of mutants change with the code and are those of then."""
    rows = json.loads(mutants.RECORD.read_text(encoding="utf-8"))
    assert set(rows) <= set(mutants.TARGETS)
    for file, row in rows.items():
        assert row["mutants"] >= row["tried"], file
        assert row["tried"] == row["killed"] + row["argued"] + len(row["open"]), file
    assert sum(row["tried"] for row in rows.values()) >= 200


@pytest.mark.slow
def test_faults_that_went_unnoticed_are_noticed() -> None:
    """In a process of its own, which has not imported the package yet."""
    command = [sys.executable, mutants.__file__, "--named"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(mutants.NAMED)} of {len(mutants.NAMED)} killed" in done.stdout
