"""No tolerance was found by running: none is a small literal, and none is left to a default.

A tolerance says what it counts (tolerance.py): rounding of so many sums at a conditioning, digits
that a figure is printed to, standard errors of a sample, what a predicted rate leaves. Levels that
are part of what is tested have a name.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parent.glob("*.py"))
KEYWORDS = {"rtol", "atol", "abs", "rel"}
COMPARISONS = {"assert_close", "allclose", "isclose", "assert_allclose", "approx"}
# Below it, a literal is taken for a tolerance; above it, for a share that a comment argues.
SMALL = 1e-2


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """The small numbers in an expression, however it goes on to compute with them."""
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and isinstance(node.value, float)
        if number and 0 < node.value < SMALL:
            yield node


def allowances(tree: ast.AST) -> Iterator[ast.AST]:
    """What a test allows: tolerances by keyword or in a dict, and right sides of < and <=."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            yield node.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in KEYWORDS:
                    yield value
        elif isinstance(node, ast.Compare):
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, ast.Lt | ast.LtE):
                    yield right


def defaults(tree: ast.AST) -> Iterator[ast.Call]:
    """Comparisons that leave the tolerance to a library."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = (
                node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            )
            given = {keyword.arg for keyword in node.keywords}  # None is **
            if name in COMPARISONS and not given & (KEYWORDS | {None}) and len(node.args) < 3:
                yield node


def faults(source: str) -> list[int]:
    tree = ast.parse(source)
    found = [literal for part in allowances(tree) for literal in literals(part)]
    return sorted({node.lineno for node in [*found, *defaults(tree)]})


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_tolerances_are_derived(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("assert_close(a, b, rtol=1e-9, atol=0)", True),
        ("assert_close(a, b, rtol=0, atol=4 * 1e-14 * size)", True),
        ("close = {'rel': 1e-9}", True),
        ("assert gap < 1e-11", True),
        ("assert a <= bound * (1 + 1e-12)", True),
        ("assert a <= (1e-6 if single else 2)", True),
        ("torch.testing.assert_close(a, b)", True),
        ("assert a == pytest.approx(2.0)", True),
        ("assert np.allclose(a, b)", True),
        ("assert_close(a, b, rtol=rounding(8), atol=0)", False),
        ("assert_close(a, b, **near(8, scale=3.0))", False),
        ("assert a == pytest.approx(2.0, rel=0.05)", False),
        ("assert gap > 1e-4", False),
    ],
)
def test_what_counts_as_one(line: str, found: bool) -> None:
    assert bool(faults(line)) is found
