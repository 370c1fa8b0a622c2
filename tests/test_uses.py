"""What claims rest on: other claims, and never, through others, themselves."""

from graphlib import TopologicalSorter

import pytest

from loraone_theory.claims import CLAIMS


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_claim_uses_exists(name):
    uses = CLAIMS[name].uses
    assert isinstance(uses, tuple)
    assert set(uses) <= set(CLAIMS), "ids of today, not aliases"
    assert len(set(uses)) == len(uses)


def test_no_claim_rests_on_itself():
    """`prepare` raises CycleError, which names the circle."""
    TopologicalSorter({claim.id: claim.uses for claim in CLAIMS.values()}).prepare()


def test_the_chain_of_theorem_4_2():
    """From the closed forms of the gradient to the theorem, as docs/derivations.md goes."""
    found, todo = set(), ["lora-one/theorem-4.2"]
    while todo:
        new = set(CLAIMS[todo.pop()].uses) - found
        found |= new
        todo += new
    assert {
        "lora-one/lemma-d.2",
        "lora-one/lemma-d.5",
        "lora-one/relu/rates",
        "lora-one/relu/lemma-a",
        "lora-one/relu/closed-forms",
        "lora-one/linear/one-step/preconditioned",
    } <= found
