"""Mutation testing of the numerical core: one small fault at a time, and do its tests notice?

    python tests/mutants.py                       every mutant, going on where a run was stopped
    python tests/mutants.py --sample 40 --seed 1  as many, drawn at random
    python tests/mutants.py --each 3              as many of each file of which fewer were tried
    python tests/mutants.py --only core/linalg    of the files whose path holds this
    python tests/mutants.py --again --tests FILE  those that survived, on the tests of this file
    python tests/mutants.py --named               the hand-written ones of NAMED alone
    python tests/mutants.py --record              count what was tried, in records/mutants.*

A mutant is the source with one node of its syntax tree replaced: signs, sums cut to one term,
comparisons moved or made always true, constants off by one or times 0.9, 1.1 and 1e6, any for all,
min for max. The tests of its file (TARGETS) run in a forked process on a copy of the repository
that holds the mutant, those that call the changed function, quick ones before slow ones; it is
killed when one fails. Survivors must stand in tests/mutants.json, each with the reason why no
test can tell it from the original; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mutant_record
import mutant_runs
from mutant_record import NOTHING
from mutant_runs import PACKAGE, ROOT
from mutant_targets import TARGETS

ARGUED = Path(__file__).with_suffix(".json")
RESULTS = ROOT / "records" / "mutants.jsonl"  # what has been tried, one by one
RECORD = ROOT / "records" / "mutants.json"  # the same, counted file by file
PAGE = ROOT / "records" / "mutants.md"  # and as a table


class Mutant(NamedTuple):
    """One change of one file, in the function `where`; `name` outlives changes elsewhere in it."""

    file: str
    name: str
    source: str
    tests: tuple[str, ...]
    where: str = ""


# Faults that a reader found and no test noticed: file, text, replacement.
NAMED = (
    ("claims/lora_one/paper/base.py", "inside=rho <= start", "inside=True"),
    ("claims/judge.py", "float(slack.min())", "2 * float(slack.min())"),
    ("core/linalg.py", "for _ in range(2):", "for _ in range(1):"),
    ("core/linalg.py", "<= M.shape[-2] * eps(M)).all()", "<= 1e6 * M.shape[-2] * eps(M)).all()"),
    ("core/linalg.py", "cutoff = r * eps(M)", "cutoff = 1e4 * r * eps(M)"),
    ("predict/relu.py", "SAMPLING_FACTOR = 1.1", "SAMPLING_FACTOR = 1.0"),
)
# The tests that notice them now.
NOTICING = (
    "test_linalg.py",
    "test_stats.py::test_an_allowance_counts_once",
    "test_theorems_relu.py::test_draws_that_start_too_far_off_are_no_support",
    "test_theorems_relu.py::test_the_sampling_noise_of_the_first_error_is_the_predicted_one",
)


def named() -> list[Mutant]:
    """The mutants of NAMED; each text must occur exactly once."""
    made = []
    for file, old, new in NAMED:
        source = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise ValueError(f"{file} must hold {old!r} once; it does {source.count(old)} times")
        made.append(Mutant(file, f"{file}: {old} -> {new}", source.replace(old, new), NOTICING))
    return made


ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*"}
COMPARISONS = {
    ast.Lt: ("<=", ">"), ast.LtE: ("<", ">"), ast.Gt: (">=", "<"), ast.GtE: (">", "<"),
    ast.Eq: ("!=",), ast.NotEq: ("==",),
}  # fmt: skip
CALLS = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "any": "all", "all": "any",
    "clamp_min": "clamp_max", "clamp_max": "clamp_min", "floor": "ceil", "ceil": "floor",
}  # fmt: skip


def replacements(node: ast.AST) -> Iterator[str]:
    """Source texts that stand in for a node."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = ast.unparse(node.left), ast.unparse(node.right)
        yield f"(({left}) {ARITHMETIC[type(node.op)]} ({right}))"
        yield f"({left})"
        if isinstance(node.op, ast.Add | ast.Mult):
            yield f"({right})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
        for symbol in COMPARISONS.get(type(node.ops[0]), ()):
            yield f"(({left}) {symbol} ({right}))"
        if type(node.ops[0]) in COMPARISONS:
            yield from ("True", "False")
    elif isinstance(node, ast.BoolOp):
        joint = " or " if isinstance(node.op, ast.And) else " and "
        yield "(" + joint.join(f"({ast.unparse(value)})" for value in node.values) + ")"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (f"({node.value + 1})", f"({node.value - 1})")
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        if node.value == 0:
            yield "1.0"
        else:
            yield from (f"({node.value!r} * {factor})" for factor in ("0.9", "1.1", "1e6"))
    elif isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name in CALLS:
            whole = ast.unparse(node)
            head, _, tail = (
                whole.partition(name + "(") if whole.count(name + "(") == 1 else ("",) * 3
            )
            if tail:
                yield f"{head}{CALLS[name]}({tail}"


def sites(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Nodes of code that computes, with the name of the function they are in.

    Left out: what is raised, texts, type hints, decorators, imports and docstrings; `strict` of
    zip, which says of lengths that are equal that they are.
    """

    def walk(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}" if where else node.name
        else:
            yield node, where
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, where)

    yield from walk(tree, "")


def mutants_of(file: str, source: str, tests: tuple[str, ...]) -> list[Mutant]:
    """Every mutant of one file."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data, found, seen = source.encode(), [], {}
    for node, where in sites(ast.parse(source)):
        for new in replacements(node):
            first = starts[node.lineno - 1] + node.col_offset  # ast counts bytes
            last = starts[node.end_lineno - 1] + node.end_col_offset
            changed = (data[:first] + new.encode() + data[last:]).decode()
            old = " ".join(data[first:last].decode().split())
            name = f"{file}::{where}: {lines[node.lineno - 1].strip()}: {old} -> {new}"
            seen[name] = seen.get(name, 0) + 1
            suffix = f" #{seen[name]}" if seen[name] > 1 else ""
            found.append(Mutant(file, name + suffix, changed, tests, where))
    return found


def mutants_in(file: str) -> list[Mutant]:
    """The mutants of one of TARGETS, to be tried on its doctests first."""
    source = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
    return mutants_of(file, source, (f"../{PACKAGE}/{file}", *TARGETS[file]))


def every(only: tuple[str, ...] = ("",)) -> list[Mutant]:
    """The mutants of every file of TARGETS whose path holds one of `only`."""
    files = [file for file in TARGETS if any(part in file for part in only)]
    return [mutant for file in files for mutant in mutants_in(file)]


def spread(mutants: list[Mutant], count: int, seed: str) -> list[Mutant]:
    """So many at random, from as many functions as there are: a second of one after all others."""
    met: Counter[str] = Counter()
    turns = []
    for mutant in random.Random(seed).sample(mutants, len(mutants)):
        turns.append((met[mutant.where], mutant))
        met[mutant.where] += 1
    return [mutant for _, mutant in sorted(turns, key=lambda turn: turn[0])[:count]]


def of_each(count: int, only: tuple[str, ...], seed: int) -> list[Mutant]:
    """So many mutants of every file of which fewer have been tried."""
    rows, drawn = recorded(), []
    for file in TARGETS:
        if any(part in file for part in only) and rows.get(file, NOTHING)["tried"] < count:
            drawn += spread(mutants_in(file), count, f"{seed} {file}")
    return drawn


def argued() -> dict[str, str]:
    """Survivors that were looked at: how their names start -> why no test could see a fault."""
    return json.loads(ARGUED.read_text(encoding="utf-8")) if ARGUED.is_file() else {}


def tried() -> dict[str, bool]:
    """Mutants that were tried before, by name, and whether they were killed."""
    if not RESULTS.is_file():
        return {}
    rows = (json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row["killed"] for row in rows}


def line(name: str, killed: bool) -> str:
    """One row of RESULTS."""
    return json.dumps({"name": name, "killed": killed}, ensure_ascii=False) + "\n"


def survivors(
    mutants: list[Mutant], known: dict[str, bool], keep: bool, seconds: float, quick: bool
) -> list[str]:
    """Try them, those that are not yet known, and name the ones that no test notices."""
    new = [mutant for mutant in mutants if mutant.name not in known]
    found = dict(known)
    with tempfile.TemporaryDirectory() as folder:
        if new:
            mutant_runs.import_before()
            suite = mutant_runs.Suite(mutant_runs.Shadow(Path(folder)), seconds, quick=quick)
        for i, mutant in enumerate(new):
            killed, taken = suite.kills(mutant)
            found[mutant.name] = killed
            outcome = "killed" if killed else "SURVIVED"
            print(f"{i + 1}/{len(new)} {outcome} {taken:.1f} s  {mutant.name}", flush=True)
            if keep:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(line(mutant.name, killed))
    return [mutant.name for mutant in mutants if not found[mutant.name]]


def recorded() -> dict[str, mutant_record.Row]:
    """The rows of RECORD."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def record() -> None:
    """What was tried so far of today's mutants: RESULTS without the others, RECORD and PAGE."""
    known, reasons, before = tried(), tuple(argued()), recorded()
    rows, lines = {}, []
    for file in TARGETS:
        names = [mutant.name for mutant in mutants_in(file)]
        lines += [line(name, known[name]) for name in names if name in known]
        rows[file] = mutant_record.row(names, known, reasons, before.get(file, NOTHING))
    RESULTS.write_text("".join(lines), encoding="utf-8")
    RECORD.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(mutant_record.page(rows), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, help="try this many, drawn at random")
    parser.add_argument("--each", type=int, help="try this many of files with fewer in the record")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", nargs="+", default=[""], help="files whose path holds one")
    parser.add_argument("--named", action="store_true", help="the hand-written mutants alone")
    parser.add_argument("--again", action="store_true", help="those that survived, once more")
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    parser.add_argument("--tests", nargs="+", help="run these test files in place of TARGETS'")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of tests for one mutant")
    parser.add_argument("--quick", action="store_true", help="the first tests of a file alone")
    parser.add_argument("--record", action="store_true", help="write what was tried, try nothing")
    given = parser.parse_args(arguments)
    if given.record:
        record()
        return 0
    if given.fresh:
        RESULTS.unlink(missing_ok=True)
    known = {} if given.named else tried()
    if given.named:
        mutants = named()
    elif given.each is not None:
        mutants = of_each(given.each, tuple(given.only), given.seed)
    else:
        mutants = every(tuple(given.only))
    if given.again:
        alive = {name for name, killed in known.items() if not killed}
        mutants = [m for m in mutants if m.name in alive and not m.name.startswith(tuple(argued()))]
        known = {}
    if given.tests:
        mutants = [mutant._replace(tests=tuple(given.tests)) for mutant in mutants]
    if given.sample is not None:
        mutants = random.Random(given.seed).sample(mutants, min(given.sample, len(mutants)))
    found = survivors(mutants, known, not given.named, given.seconds, given.quick)
    new = [name for name in found if not name.startswith(tuple(argued()))]
    killed = len(mutants) - len(found)
    print(f"{killed} of {len(mutants)} killed; {len(found) - len(new)} argued equivalent")
    for name in new:
        print(f"survivor: {name}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
