"""Mutation testing of the numerical core: one small fault at a time, and do its tests notice?

    python tests/mutants.py                       every mutant, going on where a run was stopped
    python tests/mutants.py --sample 40 --seed 1  as many, drawn at random
    python tests/mutants.py --only core/linalg    of the files whose path holds this
    python tests/mutants.py --again --tests FILE  those that survived, on the tests of this file
    python tests/mutants.py --named               the hand-written ones of NAMED alone
    python tests/mutants.py --record              what was tried so far, into records/mutants.json

A mutant is the source with one node of its syntax tree replaced: signs, sums cut to one term,
comparisons moved or made always true, constants off by one or times 0.9, 1.1 and 1e6, any for all,
min for max. The tests of its file (TARGETS) run in a forked process on a copy of the repository
that holds the mutant, first those that call the changed function, quick ones before slow ones; it
is killed when one fails. Survivors must stand in tests/mutants.json, each with the reason why no
test can tell it from the original; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mutant_runs
from mutant_runs import PACKAGE, ROOT

ARGUED = Path(__file__).with_suffix(".json")
RESULTS = ROOT / ".mutants.jsonl"  # ignored by git: what has been tried already, one by one
RECORD = ROOT / "records" / "mutants.json"  # the same, counted

RULE_TESTS = ("test_rules.py", "test_methods_longhand.py", "test_contracts.py")
PREDICT_TESTS = ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py")
SENSING_TESTS = (
    "test_sensing_operators.py", "test_predict_sensing.py", "test_noise.py", "test_exact_laws.py",
)  # fmt: skip
# Files of the core -> their tests, the quick and telling ones first.
GROUPS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("core/linalg.py",): ("test_linalg.py", "test_metrics.py", "test_laws.py", "test_inits.py"),
    ("core/tall.py", "core/elementwise.py", "core/implicit.py"): (
        "test_linalg.py",
        "test_elementwise.py",
        "test_steppers.py",
    ),
    ("dynamics/loop.py",): ("test_simulate.py", "test_steppers.py", "test_linear_oracle.py"),
    ("dynamics/steppers.py",): ("test_steppers.py", "test_linear_oracle.py"),
    ("dynamics/capture.py", "core/eigen.py"): ("test_capture.py",),
    ("dynamics/endings.py",): ("test_endings.py", "test_simulate.py"),
    ("dynamics/batches.py",): ("test_minibatches.py",),
    ("dynamics/continuation.py", "dynamics/until.py"): ("test_continuation.py", "test_simulate.py"),
    tuple(
        f"methods/rules/{name}.py"
        for name in (
            "adalora", "adamw", "alternating", "flow", "gauss_newton", "gd", "lora_muon",
            "lora_plus", "lora_pro", "lora_rite", "momentum", "muon", "preconditioned",
            "scaled_adamw", "spectral_scaled",
        )
    ): RULE_TESTS,
    ("methods/rules/base.py",): (
        "test_relative_damping.py",
        *RULE_TESTS,
        "test_predict_methods.py",
    ),
    ("methods/schedules.py",): ("test_schedules.py",),
    tuple(
        f"predict/{name}.py"
        for name in ("contraction", "floors", "modes", "rates", "tangent", "tangent_map")
    ): (*PREDICT_TESTS, "test_predict_sensing.py"),
    ("predict/linearised.py",): ("test_predict.py",),
    ("predict/relu.py", "predict/relu_modes.py", "predict/relu_contraction.py"): (
        "test_predict_sensing.py",
        "test_theorems_relu.py",
        "test_relu_dynamics.py",
    ),
    ("predict/flow.py",): ("test_flow.py", "test_predict_flow.py"),
    ("predict/noise.py", "predict/one_step.py"): (
        "test_predict_noise.py",
        "test_predict_sensing.py",
    ),
    ("predict/stochastic.py",): ("test_stochastic.py",),
    ("predict/tuning.py", "predict/curves.py", "predict/compare.py"): (
        "test_compare.py",
        "test_predict_methods.py",
    ),
    ("problems/linear/blocks.py", "problems/linear/problem.py"): (
        "test_linear_oracle.py",
        "test_reduction.py",
        "test_input_laws.py",
    ),
    ("problems/linear/covariance.py",): ("test_sampling.py", "test_reduction.py"),
    ("problems/linear/reduction.py",): ("test_reduction.py",),
    ("problems/linear/noise.py", "problems/linear/laws.py"): (
        "test_noise.py",
        "test_input_laws.py",
        "test_exact_laws.py",
    ),
    ("problems/relu/closed_forms.py", "problems/relu/population.py", "problems/relu/problem.py"): (
        "test_relu_math.py",
        "test_relu_problems.py",
        "test_relu_dynamics.py",
    ),
    ("problems/sensing/problem.py", "problems/sensing/lazy.py", "problems/sensing/indices.py"): (
        SENSING_TESTS
    ),
    tuple(
        f"problems/sensing/operators/{name}.py"
        for name in (
            "completion", "dense", "multi_response", "rank_one", "single_response", "symmetric",
        )
    ): SENSING_TESTS,
    ("problems/sensing/rip.py", "problems/sensing/search.py"): ("test_rip.py",),
    ("claims/base.py",): ("test_stats.py", "test_verify.py"),
    ("claims/judge.py", "claims/stats.py"): ("test_stats.py",),
}  # fmt: skip
# Corners that the tests of whole methods let through; of every file.
CORNERS = "test_core_values.py"
TARGETS = {file: (CORNERS, *tests) for files, tests in GROUPS.items() for file in files}


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


def every(only: str = "") -> list[Mutant]:
    """The mutants of every file of TARGETS whose path holds `only`."""
    found = []
    for file, tests in TARGETS.items():
        if only in file:
            source = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
            found += mutants_of(file, source, (*tests, f"../{PACKAGE}/{file}"))  # and its doctests
    return found


def argued() -> dict[str, str]:
    """Survivors that were looked at: how their names start -> why no test could see a fault."""
    return json.loads(ARGUED.read_text(encoding="utf-8")) if ARGUED.is_file() else {}


def tried() -> dict[str, bool]:
    """Mutants that were tried before, by name, and whether they were killed."""
    if not RESULTS.is_file():
        return {}
    rows = (json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row["killed"] for row in rows}


def survivors(mutants: list[Mutant], known: dict[str, bool], keep: bool) -> list[str]:
    """Try them, those that are not yet known, and name the ones that no test notices."""
    new = [mutant for mutant in mutants if mutant.name not in known]
    found = dict(known)
    with tempfile.TemporaryDirectory() as folder:
        if new:
            mutant_runs.import_before()
            tests = {test for mutant in new for test in mutant.tests}
            suite = mutant_runs.Suite(mutant_runs.Shadow(Path(folder)), tests)
        for i, mutant in enumerate(new):
            killed, taken = suite.kills(mutant)
            found[mutant.name] = killed
            outcome = "killed" if killed else "SURVIVED"
            print(f"{i + 1}/{len(new)} {outcome} {taken:.1f} s  {mutant.name}", flush=True)
            if keep:
                with RESULTS.open("a", encoding="utf-8") as file:
                    row = {"name": mutant.name, "killed": killed}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return [mutant.name for mutant in mutants if not found[mutant.name]]


def record() -> None:
    """What was tried so far of today's mutants, file by file, into records/mutants.json."""
    known, reasons = tried(), tuple(argued())
    rows = {}
    for file in TARGETS:
        names = [mutant.name for mutant in every() if mutant.file == file]
        alive = [name for name in names if not known.get(name, True)]
        rows[file] = {
            "mutants": len(names),
            "tried": sum(name in known for name in names),
            "killed": sum(known.get(name, False) for name in names),
            "argued": sum(name.startswith(reasons) for name in alive),
            "open": [name for name in alive if not name.startswith(reasons)],
        }
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    RECORD.write_text(f"{text}\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, help="try this many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--named", action="store_true", help="the hand-written mutants alone")
    parser.add_argument("--again", action="store_true", help="those that survived, once more")
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    parser.add_argument("--tests", nargs="+", help="run these test files in place of TARGETS'")
    parser.add_argument("--record", action="store_true", help="write what was tried, try nothing")
    given = parser.parse_args(arguments)
    if given.record:
        record()
        return 0
    if given.fresh:
        RESULTS.unlink(missing_ok=True)
    mutants, known = (named(), {}) if given.named else (every(given.only), tried())
    if given.again:
        alive = {name for name, killed in known.items() if not killed}
        mutants = [m for m in mutants if m.name in alive and not m.name.startswith(tuple(argued()))]
        known = {}
    if given.tests:
        mutants = [mutant._replace(tests=tuple(given.tests)) for mutant in mutants]
    if given.sample is not None:
        mutants = random.Random(given.seed).sample(mutants, min(given.sample, len(mutants)))
    found = survivors(mutants, known, keep=not given.named)
    new = [name for name in found if not name.startswith(tuple(argued()))]
    killed = len(mutants) - len(found)
    print(f"{killed} of {len(mutants)} killed; {len(found) - len(new)} argued equivalent")
    for name in new:
        print(f"survivor: {name}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
