"""Mutation testing of the numerical core: one small fault at a time, and do its tests notice?

    python tests/mutants.py                       every mutant, going on where a run was stopped
    python tests/mutants.py --sample 40 --seed 1  as many, drawn at random
    python tests/mutants.py --only core/linalg    of the files whose path holds this
    python tests/mutants.py --named               the hand-written ones of NAMED alone

A mutant is the source with one node of its syntax tree replaced: signs, sums cut to one term,
comparisons moved or made always true, constants off by one or times 0.9, 1.1 and 1e6, any for all,
min for max. The tests of its file (TARGETS) run in a forked process on a copy of the repository
that holds the mutant; it is killed when one fails. Survivors must stand in tests/mutants.json,
each with the reason why no test can tell it from the original; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "loraone_theory"
ARGUED = Path(__file__).with_suffix(".json")
RESULTS = ROOT / ".mutants.jsonl"  # ignored by git: what has been tried already
MEMORY = 16 << 30  # bytes of address space: a mutant that allocates without bound dies
SLOWER = 5.0  # a mutant may take this many times as long as the original ...
STARTUP = 30.0  # ... and this many seconds

# File of the core -> its tests, the quick and telling ones first.
TARGETS: dict[str, tuple[str, ...]] = {
    "core/linalg.py": ("test_linalg.py", "test_metrics.py", "test_laws.py", "test_inits.py"),
    "dynamics/loop.py": ("test_simulate.py", "test_steppers.py", "test_linear_oracle.py"),
    "dynamics/steppers.py": ("test_steppers.py", "test_linear_oracle.py"),
    "methods/rules/adalora.py": ("test_rules.py", "test_methods_longhand.py", "test_contracts.py"),
    "methods/rules/adamw.py": ("test_rules.py", "test_methods_longhand.py", "test_contracts.py"),
    "methods/rules/base.py": (
        "test_relative_damping.py",
        "test_rules.py",
        "test_methods_longhand.py",
        "test_contracts.py",
    ),
    "methods/rules/gd.py": ("test_rules.py", "test_methods_longhand.py", "test_contracts.py"),
    "methods/rules/lora_plus.py": (
        "test_rules.py",
        "test_methods_longhand.py",
        "test_contracts.py",
    ),
    "methods/rules/lora_pro.py": ("test_rules.py", "test_methods_longhand.py", "test_contracts.py"),
    "methods/rules/momentum.py": ("test_rules.py", "test_methods_longhand.py", "test_contracts.py"),
    "methods/rules/preconditioned.py": (
        "test_rules.py",
        "test_methods_longhand.py",
        "test_contracts.py",
    ),
    "methods/rules/scaled_adamw.py": (
        "test_rules.py",
        "test_methods_longhand.py",
        "test_contracts.py",
    ),
    "predict/contraction.py": (
        "test_predict.py",
        "test_predict_methods.py",
        "test_predict_shapes.py",
    ),
    "predict/floors.py": ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py"),
    "predict/linearised.py": ("test_predict.py",),
    "predict/modes.py": ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py"),
    "predict/rates.py": ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py"),
    "predict/relu.py": ("test_theorems_relu.py", "test_relu_dynamics.py"),
    "predict/tangent.py": ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py"),
    "predict/tangent_map.py": (
        "test_predict.py",
        "test_predict_methods.py",
        "test_predict_shapes.py",
    ),
    "problems/linear/blocks.py": ("test_reduction.py", "test_linear_oracle.py"),
    "problems/linear/covariance.py": ("test_sampling.py", "test_reduction.py"),
    "problems/linear/problem.py": ("test_linear_oracle.py", "test_reduction.py"),
    "problems/linear/reduction.py": ("test_reduction.py",),
    "problems/relu/closed_forms.py": ("test_relu_math.py", "test_relu_problems.py"),
    "problems/relu/population.py": ("test_relu_problems.py", "test_relu_dynamics.py"),
    "problems/relu/problem.py": ("test_relu_problems.py",),
    "claims/base.py": ("test_stats.py", "test_verify.py"),
    "claims/judge.py": ("test_stats.py",),
    "claims/stats.py": ("test_stats.py",),
}


class Mutant(NamedTuple):
    """One change of one file; `name` says which, and outlives changes elsewhere in the file."""

    file: str
    name: str
    source: str
    tests: tuple[str, ...]


# Faults that a reader found and no test noticed: file, text, replacement.
NAMED = (
    ("claims/lora_one/paper/theorem_4_2.py", "inside=rho <= start", "inside=True"),
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
            found.append(Mutant(file, name + suffix, changed, tests))
    return found


def every(only: str = "") -> list[Mutant]:
    """The mutants of every file of TARGETS whose path holds `only`."""
    found = []
    for file, tests in TARGETS.items():
        if only in file:
            source = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
            found += mutants_of(file, source, (*tests, f"../{PACKAGE}/{file}"))  # and its doctests
    return found


class Shadow:
    """A copy of the repository in which one file at a time is a mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "-co", "--exclude-standard", "--", PACKAGE, "tests",
                  "experiments", "docs", "records", "pyproject.toml", "README.md"]  # fmt: skip
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.splitlines()):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)

    def passes(self, tests: Iterable[str], limit: float) -> tuple[bool, float]:
        """Whether the tests pass on the copy as it is, and in how many seconds."""
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._run([str(Path("tests") / test) for test in tests])
        while time.perf_counter() - start < limit:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0, time.perf_counter() - start
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False, time.perf_counter() - start

    def _run(self, tests: list[str]) -> None:
        code = 3
        try:
            os.setsid()
            os.chdir(self.folder)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            sys.path[:0] = [str(self.folder), str(self.folder / "tests")]
            options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header"]
            code = int(importlib.import_module("pytest").main([*options, *tests]))
        finally:
            os._exit(code)

    @contextlib.contextmanager
    def holding(self, mutant: Mutant) -> Iterator[None]:
        """The mutant in place of its file."""
        target = self.folder / PACKAGE / mutant.file
        original = target.read_text(encoding="utf-8")
        target.write_text(mutant.source, encoding="utf-8")
        try:
            yield
        finally:
            target.write_text(original, encoding="utf-8")


def survivors(mutants: list[Mutant], results: Path | None) -> list[str]:
    """Try them, those not yet in `results`, and name the ones that no test notices."""
    known: dict[str, bool] = {}
    if results is not None and results.is_file():
        rows = (json.loads(line) for line in results.read_text(encoding="utf-8").splitlines())
        known = {row["name"]: row["killed"] for row in rows}
    sys.dont_write_bytecode = True  # a mutant of the same size and second would be taken for it
    for module in (
        "torch",
        "numpy",
        "scipy.linalg",
        "scipy.stats",
        "matplotlib.pyplot",
        "pytest",
        "mpmath",
    ):
        importlib.import_module(module)  # once, before the forks
    usual: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        shadow = Shadow(Path(folder))
        for i, mutant in enumerate(mutants):
            if mutant.name in known:
                continue
            if mutant.tests not in usual:
                passed, usual[mutant.tests] = shadow.passes(mutant.tests, 3600.0)
                if not passed:
                    raise RuntimeError(f"the tests must pass without a mutant: {mutant.tests}")
            with shadow.holding(mutant):
                passed, taken = shadow.passes(mutant.tests, STARTUP + SLOWER * usual[mutant.tests])
            known[mutant.name] = not passed
            outcome = "SURVIVED" if passed else "killed"
            print(f"{i + 1}/{len(mutants)} {outcome} {taken:.1f} s  {mutant.name}", flush=True)
            if results is not None:
                with results.open("a", encoding="utf-8") as file:
                    row = {"name": mutant.name, "killed": not passed}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return [mutant.name for mutant in mutants if not known[mutant.name]]


def argued() -> dict[str, str]:
    """Survivors that were looked at: how their names start -> why no test could see a fault."""
    return json.loads(ARGUED.read_text(encoding="utf-8")) if ARGUED.is_file() else {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, help="try this many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--named", action="store_true", help="the hand-written mutants alone")
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    given = parser.parse_args(arguments)
    mutants = named() if given.named else every(given.only)
    if given.sample is not None:
        mutants = random.Random(given.seed).sample(mutants, min(given.sample, len(mutants)))
    if given.fresh:
        RESULTS.unlink(missing_ok=True)
    found = survivors(mutants, None if given.named else RESULTS)
    new = [name for name in found if not name.startswith(tuple(argued()))]
    killed = len(mutants) - len(found)
    print(f"{killed} of {len(mutants)} killed; {len(found) - len(new)} argued equivalent")
    for name in new:
        print(f"survivor: {name}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
