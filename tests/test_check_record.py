"""check_record passes every record of the library and catches broken ones."""

import pytest
import torch

import loraone_theory as lt
from loraone_theory.testing import ContractError, check_record


@pytest.mark.parametrize("name", [n for n in lt.RECORDS if n != "test_loss"])
def test_every_record_keeps_the_promises(name):
    check_record(lt.RECORDS[name])


def spoil(view):
    view.trainable[0].mul_(2.0)
    return view.trainable[0].flatten(-2).sum(-1)


def noisy(view):
    return view.shift.A.flatten(-2).sum(-1) + torch.rand(())


def spoils_what_is_shared(view):
    return view.residual.square_().sum((-2, -1))


def over_seeds(view):
    size = view.shift.A.flatten(-2).sum(-1)
    return size / size.mean(-1, keepdim=True)


BROKEN = {
    "it changed view.residual in place": lt.Record("squares", spoils_what_is_shared),
    "must have real values": lt.Record("phase", lambda view: 1j * view.loss),
    "each run of a batch": lt.Record("over seeds", over_seeds),
    "is not rotation-invariant: on": lt.Record(  # of sizes that a reduction makes smaller
        "mean square", lambda view: view.residual.square().mean((-2, -1)), invariant=True
    ),
    "rotation-invariant: on a random": lt.Record(
        "least", lambda view: torch.linalg.svdvals(view.residual)[..., -1], invariant=True
    ),
    "must not write": lt.Record("spoils", spoil),
    "the same bits": lt.Record("noisy", noisy),
    "must measure each time": lt.Record(
        "mean", lambda view: (x := view.shift.A.flatten(-2).sum(-1)) - x.mean(0)
    ),
    "must measure each run": lt.Record(
        "spread", lambda view: (x := view.shift.A.flatten(-2).sum(-1)) - x.mean((1, 2), True)
    ),
    "not rotation-invariant": lt.Record(
        "largest", lambda view: view.shift.dense().abs().amax((-2, -1)), invariant=True
    ),
    "must have shape": lt.Record("whole", lambda view: view.shift.dense()),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_record_is_caught(promise):
    with pytest.raises(ContractError, match=promise):
        check_record(BROKEN[promise])
