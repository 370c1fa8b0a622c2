"""The README's examples print what it says, and what it links to exists."""

import doctest
import re
from pathlib import Path

from loraone_theory import storage

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def test_examples():
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(README), module_relative=False, optionflags=flags)
    assert found.attempted > 10
    assert found.failed == 0


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()]
    assert missing == []


def test_verdicts_are_those_of_the_records():
    found = {r["id"]: r["verdict"] for r in storage.load_json(ROOT / "records" / "verdicts.json")}
    rows = re.findall(r"^\| (.+?) \| .+ \| \[.+\.py\]\(.+\) \| (.+) \|$", README.read_text(), re.M)
    assert len(rows) > 10
    assert [(name, found[name]) for name, _ in rows] == rows
