"""Every public object prints as a line or so, whatever it holds."""

import pytest
import torch

import loraone_theory as lt
from loraone_theory.problems.linear import covariance

LONGEST = 250
PROBLEM = lt.sample_linear(d=30, k=20, true_rank=3, samples=300, seeds=(0, 1))
RUN = lt.simulate(PROBLEM, "lora-one", rank=3, learning_rate=0.3, steps=5)


@pytest.mark.parametrize("name", lt.METHODS)
def test_methods_and_their_rules(name):
    method = lt.METHODS[name]().at(3)
    for shown in (repr(method), repr(method.rule(0.1, 0.0))):
        assert len(shown) <= LONGEST
        assert " at 0x" not in shown
    assert repr(name) in repr(method)


@pytest.mark.parametrize(
    "thing",
    [PROBLEM, RUN, RUN.final, RUN.status[0], PROBLEM.shift, PROBLEM.covariance,
     covariance.Rows(torch.ones(5, 30)), lt.SVDOptions(), lt.schedules.cosine(0.5, steps=9)],
    ids=lambda thing: type(thing).__name__,
)  # fmt: skip
def test_objects(thing):
    assert len(repr(thing)) <= LONGEST
    assert "tensor(" not in repr(thing)


def test_factors_and_covariances_tell_their_shapes():
    assert repr(RUN.final) == "Factors(A=(2, 30, 3), B=(2, 3, 20), float64)"
    assert "(2, 30, 30)" in repr(PROBLEM.covariance)
