"""Numbers in the texts of claims are those that run: none is typed where it is told."""

import ast
import re
from pathlib import Path

import pytest

from loraone_theory import claims

PACKAGE = Path(claims.__file__).parent
# Certificates tell formulas.
APART = {"certified"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name not in APART)
# What a text may call by number: statements of papers, and sections of the derivations.
NAMES = re.compile(
    r"\b(Theorem|Lemma|Assumption|Algorithm|Alg\.|Eq\.|Fig\.|Figure|Section|Sec\.|Appendix|App\.|"
    r"derivations|lora-one/[a-z0-9./-]+)[ ~]?[A-Z]?\.?\d*(\.\d+)*"
)


def typed(source: str, keyword: str = "how") -> list[tuple[int, str]]:
    """Lines and texts of numbers typed into what is given as `keyword`, names followed."""
    tree = ast.parse(source)
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
    found, waiting, seen = [], [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == keyword:
            waiting.append(node.value)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            # A name of text is followed; one of numbers is what a template is for.
            if node.id not in seen:
                seen.add(node.id)
                waiting += [v for v in assigned.get(node.id, []) if _is_text(v)]
        elif isinstance(node, ast.FormattedValue):
            numbers = [n for n in ast.walk(node.value) if _is_number(n) and not _counts(node, n)]
            found += [(n.lineno, repr(n.value)) for n in numbers if isinstance(n, ast.Constant)]
            waiting += [n for n in ast.walk(node.value) if isinstance(n, ast.Name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.search(r"\d", NAMES.sub("", node.value), re.ASCII):
                found.append((node.lineno, node.value))
        else:
            waiting += list(ast.iter_child_nodes(node))
    return sorted(set(found))


def _is_text(node: ast.expr) -> bool:
    """Whether a value is made of text, or is another name, which may be."""
    return isinstance(node, ast.Name) or any(
        isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in ast.walk(node)
    )


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _counts(whole: ast.FormattedValue, number: ast.AST) -> bool:
    """Whether a number is the place of an item: `RATES[0]`, `RATES[-1]`."""
    places = [n.slice for n in ast.walk(whole.value) if isinstance(n, ast.Subscript)]
    return any(number in ast.walk(place) for place in places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_number_is_typed_into_how_a_claim_is_tested(path):
    assert typed(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('D = 3\nf(how=f"d = {D}, as in Theorem 3.1 and Fig. 4")', 0),
        ('D = (3, 4)\nf(how=f"d from {D[0]} to {D[-1]:g}, {D[0]:.0%}")', 0),
        ('f(how="d = 3")', 1),
        ('D = 3\nf(how=f"d = {D}, N = 16d")', 1),
        ('D = 3\nf(how=f"N = {16 * D}")', 1),
        ('SIZES = "N = 16d"\nf(how=f"At {SIZES}")', 1),
        ('SIZES = "N = 16d"\nHOW = SIZES\nf(how="at " + HOW.lower())', 1),
        ('f(statement="1/(2κ)", how="both factors of ½, A₀ and B₀")', 0),
    ],
)
def test_typed_numbers_are_found(text, count):
    assert len(typed(text)) == count
