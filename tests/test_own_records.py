"""Records and losses of one's own that would spoil a run's numbers are refused at once."""

from typing import Any

import numpy as np
import pytest
import tolerance
import torch

import loraone_theory as lt
from loraone_theory.dynamics.records import TAKEN

PROBLEM = lt.sample_linear(d=8, k=6, true_rank=2, samples=60, seeds=(0, 1))
OPTIONS: dict[str, Any] = {"rank": 3, "learning_rate": [0.05, 0.1], "steps": 4}
WRITING = {
    "residual": lambda view: view.residual.square_().sum((-2, -1)),
    "loss": lambda view: view.loss.mul_(2.0),
    "singular_values": lambda view: view.singular_values.square_().sum(-1),
    "gradients": lambda view: view.gradients[0].square_().sum((-2, -1)),
    "trainable": lambda view: view.trainable[0].mul_(2.0).sum((-2, -1)),
    "reference": lambda view: view.reference.U.mul_(2.0).sum() + view.loss,
}


@pytest.mark.parametrize("field", WRITING)
@pytest.mark.parametrize("reduce", ["auto", "never"])
def test_a_record_must_not_write_to_what_others_see(field: str, reduce: str) -> None:
    record = [lt.Record("writes", WRITING[field]), "loss", "error"]
    with pytest.raises(TypeError, match=rf"record 'writes' must not write .* view.{field} changed"):
        lt.simulate(PROBLEM, "lora", record=record, reduce=reduce, **OPTIONS)


def test_a_record_that_makes_new_tensors_leaves_the_others_alone() -> None:
    own = lt.Record("square", lambda view: view.residual.square().sum((-2, -1)))
    with_it = lt.simulate(PROBLEM, "lora", record=[own, "loss", "error"], **OPTIONS)
    without = lt.simulate(PROBLEM, "lora", record=["loss", "error"], **OPTIONS)
    assert torch.equal(with_it["loss"], without["loss"])
    assert torch.equal(with_it["error"], without["error"])


def test_values_are_real() -> None:
    phase = lt.Record("phase", lambda view: 1j * view.loss)
    with pytest.raises(TypeError, match="record 'phase' must have real values; got complex128"):
        lt.simulate(PROBLEM, "lora", record=[phase], **OPTIONS)


@pytest.mark.parametrize("name", TAKEN)
def test_names_of_axes_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match=f"got '{name}'; give it another one"):
        lt.Record(name, lambda view: view.loss)


def test_every_name_beside_the_records_is_taken() -> None:
    """Of what a run with all its axes is turned into."""
    run = lt.simulate(PROBLEM, "lora", init_std=[0.1, 0.2], seeds=(3, 4), **OPTIONS)
    beside = {"step", *run.coordinates, *run.axes, *run.to_numpy()} - set(run.records)
    for name in beside:
        with pytest.raises(ValueError, match="give it another one"):
            lt.Record(name, lambda view: view.loss)


def test_a_record_of_ones_own_beside_compiled_ones() -> None:
    pytest.importorskip("numba")
    own = lt.Record("twice", lambda view: 2 * view.loss)
    run = lt.simulate(PROBLEM, "lora", record=[own, "loss"], engine="numba", **OPTIONS)
    # The loss of 48 entries, whose products are of length 8, twice; after four steps either way.
    allowed = tolerance.rounding(48, operations=8)
    np.testing.assert_allclose(run["twice"], 2 * run["loss"], rtol=allowed)


class Given:
    """A problem by its gradients, whose loss is what is given."""

    def __init__(self, loss: Any) -> None:
        self.given = loss
        self.d, self.k, self.batch_shape = 4, 3, torch.Size(())
        self.like = torch.zeros((), dtype=torch.float64)
        self.target = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)

    def gradients(self, shift: Any) -> Any:
        E = shift.dense() - self.target
        return type(shift)(E @ shift.B.mT, shift.A.mT @ E)

    def one_step_gradient(self) -> torch.Tensor:
        return self.target

    def with_offset(self, offset: Any) -> Any:
        raise NotImplementedError

    def loss(self, shift: Any) -> Any:
        return self.given((shift.dense() - self.target).square() / 2)


def test_a_loss_of_each_run_is_taken() -> None:
    run = lt.simulate(Given(lambda E: E.sum((-2, -1))), "lora", record=["loss"], **OPTIONS)
    assert bool((run["loss"][-1, 0] != run["loss"][-1, 1]).all())


@pytest.mark.parametrize("loss", [lambda E: E.sum(), lambda E: float(E.sum()), lambda E: E])
def test_a_loss_that_is_not_one_for_each_run_is_refused(loss: Any) -> None:
    with pytest.raises(TypeError, match=r"loss of Given must give a tensor .* got"):
        lt.simulate(Given(loss), "lora", record=["loss"], **OPTIONS)
