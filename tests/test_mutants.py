"""The mutation script finds the right changes, and the faults that once went unnoticed are noticed.

`make mutants` tries every mutant of the numerical core; this is a sample of it.
"""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import mutant_record
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
        "tests/test_f.py::quick[1]": mutant_runs.Test(1.0, frozenset({"core/f.py::f"})),
        "tests/test_f.py::another": mutant_runs.Test(0.1, frozenset({"core/f.py::fg"})),
        "tests/test_e.py::other_file": mutant_runs.Test(0.1, frozenset({"core/f.py::f"})),
        "core/f.py::core.f.f": mutant_runs.Test(0.2, frozenset({"core/e.py::f"})),
    }
    inside, tests = mutants.Mutant("core/f.py", "", "", (), "f"), ("test_f.py", "../core/f.py")
    quick, slow = "tests/test_f.py::quick[1]", "tests/test_f.py::slow"
    assert suite.of(inside, tests) == [quick, slow]
    assert suite.of(inside, ["test_f.py::quick"]) == [quick]
    assert suite.of(inside._replace(where="Unseen"), tests) == []
    assert len(suite.of(inside._replace(where=""), tests)) == 3
    assert len(suite.of(inside, tests, meeting=False)) == 4
    assert suite._within([quick, slow], 1.5) == ([quick], 0.5)


def test_parts_of_the_tests_run_in_turn_until_one_notices() -> None:
    """Test c alone fails, and nothing is known to call g: then all of them run."""

    class Suite(mutant_runs.Suite):
        def watch(self, tests: Sequence[str]) -> None:
            called = frozenset({"core/f.py::f"})
            self.known |= {f"tests/{test}": mutant_runs.Test(1.0, called) for test in tests}

        def _fails(self, mutant: mutants.Mutant, tests: list[str]) -> tuple[bool, float]:
            ran.append("".join(test[-4] for test in tests))
            return "tests/c.py" in tests, 1.0

    mutant = mutants.Mutant("core/f.py", "", "", tuple(f"{name}.py" for name in "abdexcz"), "f")
    for seconds, where, killed, expected in (
        (math.inf, "f", True, ["abdex", "c"]),
        (5.5, "f", False, ["abdex", ""]),
        (math.inf, "g", True, ["", "", "", "abdexcz"]),
    ):
        ran: list[str] = []
        suite = Suite(shadow=None, seconds=seconds)  # type: ignore[arg-type]
        assert suite.kills(mutant._replace(where=where))[0] is killed
        assert [part for part in ran if part] == [part for part in expected if part]
    quick = Suite(shadow=None, quick=True)  # type: ignore[arg-type]
    ran = []
    assert not quick.kills(mutant)[0]
    assert ran == ["abdex"]


def test_a_few_mutants_of_a_file_are_of_as_many_functions() -> None:
    made = [
        mutants.Mutant("core/f.py", f"{where}{i}", "", (), where)
        for where, count in (("f", 50), ("g", 2), ("h", 1))
        for i in range(count)
    ]
    for count, times in ((3, [1, 1, 1]), (5, [1, 2, 2]), (7, [1, 2, 4]), (99, [1, 2, 50])):
        drawn = mutants.spread(made, count, "0 core/f.py")
        assert sorted(Counter(mutant.where for mutant in drawn).values()) == times
        assert drawn == mutants.spread(made, count, "0 core/f.py")
        assert len(set(drawn)) == len(drawn)
    assert mutants.spread(made, 9, "0 core/f.py") != mutants.spread(made, 9, "1 core/f.py")


def test_rows_count_what_was_tried_and_the_larger_of_two_samples_stands() -> None:
    names, known = ["a", "b", "c", "d"], {"a": True, "b": False, "c": False, "gone": True}
    found = mutant_record.row(names, known, ("b",), mutant_record.NOTHING)
    assert found == {"mutants": 4, "tried": 3, "killed": 1, "argued": 1, "open": ["c"]}
    assert mutant_record.counts(found) == [4, 3, 1, 1, 1]
    before = {"mutants": 9, "tried": 4, "killed": 4, "argued": 0, "open": []}
    assert mutant_record.row(names, known, (), before) == before | {"mutants": 4}


def test_every_target_and_its_tests_exist() -> None:
    for file, tests in mutants.TARGETS.items():
        assert (mutants.ROOT / mutants.PACKAGE / file).is_file(), file
        for test in tests:
            name, _, inside = test.partition("::")
            text = (mutants.ROOT / "tests" / name).read_text(encoding="utf-8")
            assert not inside or f"def {inside}(" in text, test


def test_the_survivors_that_are_argued_are_mutants_of_today_and_have_a_reason() -> None:
    """A line that changed takes its argument with it: look again."""
    known = [mutant.name for mutant in mutants.every()]
    gone = [key for key in mutants.argued() if not any(name.startswith(key) for name in known)]
    assert gone == []
    assert all(len(reason.split()) >= 5 for reason in mutants.argued().values())


def test_what_was_tried_adds_up() -> None:
    """Numbers of mutants change with the code and are those of then."""
    rows = mutants.recorded()
    assert list(rows) == list(mutants.TARGETS)
    for file, row in rows.items():
        assert row["mutants"] >= row["tried"], file
        assert row["tried"] == row["killed"] + row["argued"] + len(row["open"]), file
    assert mutants.PAGE.read_text(encoding="utf-8") == mutant_record.page(rows)


@pytest.mark.slow
def test_faults_that_went_unnoticed_are_noticed() -> None:
    """In a process of its own, which has not imported the package yet."""
    command = [sys.executable, mutants.__file__, "--named"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(mutants.NAMED)} of {len(mutants.NAMED)} killed" in done.stdout
