"""Who may import whom, where imports may stand, and what importing the package costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "loraone_theory"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import those of its own and of lower levels. The first match of a name counts.
LEVELS = [
    (r"(factors|validate|threads|tall)", 0),
    (r"(linalg|randomness|records|status|stats)", 1),
    (r"(trajectory|capture|parametrisations)", 4),
    (r"problems", 2),
    (r"(inits|rules)", 5),
    (r"methods", 6),
    (r"(metrics|predict|predict_relu)", 7),
    (r"(plan|steppers|simulate)", 8),
    (r"testing", 8),
    (r"theorems", 9),
    (r"(verify|compare|bench|report|plotting|experiment|integrations)", 10),
    (r"cli", 11),
]
# Folders whose files stand side by side and share only base.py.
SIBLINGS = {"inits", "rules", "theorems"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(module):
    inner = module.split(".")[1] if "." in module else ""
    for pattern, height in LEVELS:
        if re.fullmatch(pattern, inner):
            return height
    return 12  # the package itself


MODULES = {name_of(path) for path in FILES}


def imports(path, *, inside_functions=None):
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
    own = here.split(".")[1] if "." in here else ""
    for there in imports(path):
        if not there.startswith("loraone_theory") or here == "loraone_theory":
            continue
        assert there != "loraone_theory", f"{here} imports the package as a whole"
        assert level(there) <= level(here), f"{here} imports {there}, which is above it"
        package = there.split(".")[1]
        if package == own and own in SIBLINGS and here.count(".") == 2:
            assert there.endswith(".base"), f"{here} imports its sibling {there}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stand_at_the_top(path):
    """Only integrations and the command line may import optional things on demand."""
    if "integrations" in path.parts or "cli" in path.parts:
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


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, loraone_theory; heavy = {'matplotlib', 'peft', 'transformers', 'tyro', "
        "'rich', 'hypothesis', 'sklearn'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
