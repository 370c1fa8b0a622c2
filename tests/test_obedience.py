"""A problem of one's own is obeyed: fast paths serve exactly the class they were written for."""

from dataclasses import dataclass

import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors


def given(seeds=(0, 1)):
    return lt.sample_linear(d=7, k=6, true_rank=2, samples=40, seeds=seeds)


class Stiffer(lt.LinearProblem):
    """The linear loss plus (c/2)‖AB‖_F², a ridge on what has been learned."""

    def loss(self, shift, E=None):
        return super().loss(shift) + 0.5 * (shift.dense() ** 2).sum((-2, -1))

    def gradients(self, shift):
        A, B = shift
        grad_A, grad_B = super().gradients(shift)
        return Factors(grad_A + A @ B @ B.mT, grad_B + A.mT @ A @ B)


@dataclass(frozen=True)
class Duck:
    """½‖AB − T‖_F² with a gradient that is not its own: half of it."""

    T: torch.Tensor
    spectral_gamma: float = 1.0
    pretrained: None = None

    @property
    def d(self):
        return self.T.shape[-2]

    @property
    def k(self):
        return self.T.shape[-1]

    @property
    def true_rank(self):
        return 2

    @property
    def batch_shape(self):
        return self.T.shape[:-2]

    @property
    def like(self):
        return self.T

    def residual(self, shift):
        return shift.dense() - self.T

    def loss(self, shift, E=None):
        return 0.5 * (self.residual(shift) ** 2).sum((-2, -1))

    def risk(self, shift, E=None):
        return self.loss(shift)

    def gradients(self, shift):
        E = 0.5 * self.residual(shift)
        return Factors(E @ shift.B.mT, shift.A.mT @ E)

    def one_step_gradient(self):
        return self.T

    def with_offset(self, offset):
        return Duck(self.T + offset.dense())


def stiffer():
    plain = given()
    return Stiffer(plain.covariance, plain.shift, plain.pretrained, samples=plain.samples)


def longhand(problem, A, B, eta, steps, sigma=None):
    """Gradient descent written out, for either problem."""
    for _ in range(steps):
        if sigma is None:
            J = 0.5 * (A @ B - problem.T)
        else:
            J = sigma @ (A @ B - problem.shift.A @ problem.shift.B) + A @ B
        A, B = A - eta * J @ B.mT, B - eta * A.mT @ J
    return A @ B


@pytest.mark.parametrize("method", ["lora", "lora-one"])
def test_gradients_of_a_subclass_are_taken(method):
    problem = stiffer()
    run = lt.simulate(problem, method, rank=3, learning_rate=0.1, steps=20, seeds=(0, 1))
    expected = longhand(problem, *run.initial, 0.1, 20, problem.covariance.matrix)
    # Twenty steps, each a few products of inner dimension at most 7.
    torch.testing.assert_close(
        run.final.dense(), expected, rtol=0, atol=rounding(7, operations=4 * 20)
    )
    # A run that did not see the ridge differs by far more than rounding.
    plain = lt.simulate(given(), method, rank=3, learning_rate=0.1, steps=20, seeds=(0, 1))
    assert float((plain.final.dense() - expected).abs().max()) > 5e-3 * float(expected.abs().max())


@pytest.mark.parametrize("method", ["lora", "lora-one", "p-lora", "full", "adalora", "lora-ga"])
def test_a_duck_is_simulated_by_its_own_gradients(method):
    problem = Duck(given().shift.dense())
    run = lt.simulate(problem, method, rank=2, learning_rate=0.1, steps=5, seeds=(0, 1))
    assert bool((run["loss"][-1] < run["loss"][0]).all())
    if method in ("lora", "lora-one"):
        expected = longhand(problem, *run.initial, 0.1, 5)
        torch.testing.assert_close(
            run.final.dense(), expected, rtol=0, atol=rounding(7, operations=4 * 5)
        )


def test_a_subclass_is_not_reduced_by_hand_either():
    with pytest.raises(TypeError, match="got Stiffer"):
        lt.reduce(stiffer())
