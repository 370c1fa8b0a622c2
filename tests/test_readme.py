"""The README's examples print what it says, and what it links to exists."""

import doctest
import re
import tomllib
from pathlib import Path

import pytest

from loraone_theory import storage

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def test_examples():
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(README), module_relative=False, optionflags=flags)
    assert found.attempted > 10
    assert found.failed == 0


# Folders of pages that the build of the documentation writes.
MADE = [
    ROOT / name for name in re.findall(r"^(docs/\w+)/$", (ROOT / ".gitignore").read_text(), re.M)
]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    # `path:` is the site's word for a file that is no page of it.
    plain = [t.removeprefix("path:") for t in targets if "://" not in t]
    paths = {t: (page.parent / t).resolve() for t in plain}
    missing = [t for t, path in paths.items() if not path.exists() and path.parent not in MADE]
    assert missing == []


def anchors(page):
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    kept = ("".join(c for c in h.lower() if c.isalnum() or c in " -_") for h in headings)
    return {text.replace(" ", "-") for text in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_pages_have_an_end(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text):
        if "://" not in target:
            assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


def test_verdicts_are_those_of_the_records():
    found = {r["id"]: r["verdict"] for r in storage.load_json(ROOT / "records" / "verdicts.json")}
    rows = re.findall(r"^\| (.+?) \| .+ \| \[.+\.py\]\(.+\) \| (.+) \|$", README.read_text(), re.M)
    assert len(rows) > 10
    assert [(name, found[name]) for name, _ in rows] == rows


def test_contributing_names_files_and_tests_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(
        re.findall(
            r"`((?:loraone_theory|tests|experiments|methods|problems|operators|cli)/\S*)`", text
        )
    )
    places = (ROOT, ROOT / "loraone_theory", ROOT / "loraone_theory/problems/sensing")
    new = {path for path in paths if "my_" in path or "mine" in path}
    assert len(paths - new) > 15
    missing = {path for path in paths - new if not any((p / path).exists() for p in places)}
    assert missing == set()


SWEEPS = ROOT / "docs" / "sweeps.md"


def test_sweeps():
    """Every example of the page runs, and the file that it shows is the one that is there."""
    pytest.importorskip("xarray", reason="the extra sweep is not installed")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(SWEEPS), module_relative=False, optionflags=flags)
    assert found.attempted > 12
    assert found.failed == 0
    (shown,) = re.findall(r"```toml\n(.*?)```", SWEEPS.read_text(encoding="utf-8"), re.S)
    kept = (ROOT / "examples" / "sweep_ranks.toml").read_text(encoding="utf-8")
    ours, theirs = tomllib.loads(shown), tomllib.loads(kept)
    theirs["fixed"].pop("every")
    assert ours == theirs


EXTENDING = ROOT / "docs" / "extending.md"


def test_extending():
    """Every example of the page runs."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(EXTENDING), module_relative=False, optionflags=flags)
    assert found.attempted > 60
    assert found.failed == 0


@pytest.mark.parametrize(
    ("heading", "first", "last", "most"),
    [
        ("A rule", "def nesterov", "with_rule(", 12),
        ("An initialisation", "def half_step", "with_init(", 8),
        ("A problem from its loss", "gelu =", "in lt.METHODS}", 15),
    ],
)
def test_extending_takes_few_lines(heading, first, last, most):
    """From the first line of one's own to the one that hands it in, in the first block."""
    section = EXTENDING.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    block = section.split("```python\n")[1].split("```")[0].splitlines()
    lines = [line[4:] for line in block if line.startswith((">>>", "..."))]
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    end = next(i for i, line in enumerate(lines) if last in line)
    assert start < end
    assert end - start + 1 <= most
