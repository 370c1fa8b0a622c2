"""Claims on neighbouring papers and the derivations that they name."""

import re
from pathlib import Path

import pytest

from loraone_theory.claims import CLAIMS, PAPERS

TEXT = Path(__file__).resolve().parent.parent / "docs" / "derivations_neighbours.md"
OURS = {"lora-one", "sensing", "certified"}
NAMES = [c.id for paper in PAPERS if paper.id not in OURS for c in paper.claims]
PROVED = {name: CLAIMS[name].derivation for name in NAMES if CLAIMS[name].derivation}


def sections():
    """Number -> text, for the headings of the derivations."""
    parts = re.split(r"^## (\d+)\. ", TEXT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("number", sections())
def test_derivations_name_the_claims_that_test_them(number):
    last = sections()[number].strip().splitlines()[-1]
    assert last.startswith("Tested by: ")
    named = set(last.removeprefix("Tested by: ").rstrip(".").split(", "))
    assert named <= set(CLAIMS)
    assert named == {name for name, at in PROVED.items() if at == f"neighbours {number}"}
    assert named


def test_claims_name_sections_that_exist():
    there = {f"neighbours {number}" for number in sections()}
    assert {at for at in PROVED.values() if at.startswith("neighbours")} <= there
