"""Who may import whom, where imports may stand, and what the tests say of themselves."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from conftest import NOT_NUMERICAL, NOT_NUMERICAL_TESTS

import loraone_theory as lt

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "loraone_theory"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import those of its own and of lower levels. The first match of a name counts.
LEVELS = [
    (r"core(\..*)?", 0),
    (r"storage|agreement|plotting|shipped|environment|engines", 1),
    (r"problems(\..*)?", 2),
    (r"methods\.parametrisations", 3),
    (r"methods\.(inits|rules)(\..*)?", 4),
    (r"methods(\..*)?", 5),
    (r"metrics", 5),
    (r"predict\.(compare|tuning)", 8),  # these two simulate; the others are closed forms
    (r"predict(\..*)?", 6),
    (r"dynamics(\..*)?", 7),
    (r"testing\.claims", 10),
    (r"(testing|experiment|selftest)(\..*)?", 8),
    (r"sweeps(\..*)?", 9),
    (r"(claims|theorems)(\..*)?", 9),
    (r"(bench|integrations|nets|explore|site)(\..*)?", 10),
    (r"cli(\..*)?", 11),
]
# Folders whose files stand side by side and share only base.py.
SIBLINGS = re.compile(r"methods\.(inits|rules)|claims\.\w+(\.\w+)?")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(module):
    inner = module.partition(".")[2]
    for pattern, height in LEVELS:
        if re.fullmatch(pattern, inner):
            return height
    return 12  # the package itself


MODULES = {name_of(path) for path in FILES}


def imports(path):
    """The package's own modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path):
    here = name_of(path)
    for there in imports(path):
        if not there.startswith("loraone_theory") or here == "loraone_theory":
            continue
        assert there != "loraone_theory", f"{here} imports the package as a whole"
        assert level(there) <= level(here), f"{here} imports {there}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_siblings_do_not_import_each_other(path):
    if path.name == "__init__.py":
        return
    here, _, leaf = name_of(path).partition(".")[2].rpartition(".")
    if SIBLINGS.fullmatch(here):
        beside = [t.partition(".")[2] for t in imports(path)]
        beside = [t for t in beside if t.rpartition(".")[0] == here]
        assert set(beside) <= {f"{here}.base"}, f"{leaf} imports its siblings {beside}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stand_at_the_top(path):
    """Only integrations, networks and the command line may import optional things on demand."""
    if {"integrations", "nets", "cli"} & set(path.parts):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            late = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not late, f"{name_of(path)}.{node.name} imports inside a function"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_matplotlib_is_imported_in_one_place():
    users = [
        name_of(path)
        for path in FILES
        if any(name.split(".")[0] == "matplotlib" for name in imports(path))
    ]
    assert users == ["loraone_theory.plotting"]


def test_the_package_knows_no_experiments():
    for path in FILES:
        assert not any(name.split(".")[0] == "experiments" for name in imports(path))


def test_what_is_not_numerical_is_there():
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    assert sorted(NOT_NUMERICAL - set(texts)) == []
    there = set(re.findall(r"^def (test_\w+)", "\n".join(texts.values()), re.M))
    assert sorted(NOT_NUMERICAL_TESTS - there) == []


def test_former_names_lead_to_the_new_ones():
    with pytest.warns(DeprecationWarning, match="loraone_theory.theorems is now"):
        importlib.reload(lt.theorems)
    assert lt.theorems.CLAIMS is lt.claims.CLAIMS
    with pytest.warns(DeprecationWarning, match=r"metrics.RECORDS is now"):
        assert lt.metrics.RECORDS is lt.RECORDS


def test_every_public_name_is_there():
    for name in lt.__all__:
        assert getattr(lt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lt.nothing
