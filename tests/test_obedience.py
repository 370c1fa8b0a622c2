"""A problem of one's own is obeyed: fast paths serve exactly the class they were written for."""

import dataclasses
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


def doubled(kind):
    """A class whose loss and gradients are twice those of the one it is derived from."""

    class Doubled(kind):
        def loss(self, shift, *known):
            return 2 * super().loss(shift, *known)

        def gradients(self, shift):
            return Factors(*(2 * gradient for gradient in super().gradients(shift)))

    return Doubled


SIZES = {"d": 8, "k": 6, "true_rank": 2}


def squares(W, X, Y):
    return 0.5 * (torch.tanh(X @ W) - Y).square().sum(-1).mean()


def from_data():
    drawn = lt.sample_linear(**SIZES, samples=40, keep_inputs=True)
    X, W = drawn.inputs[0], drawn.pretrained[0]
    given = {"data": (X, torch.tanh(X @ (W + drawn.shift.dense()[0]))), "pretrained": W}
    return lt.from_loss(squares, d=8, k=6, **given)


# Every class of a problem, and how it can draw minibatches.
EACH = {
    "linear": (lambda: lt.sample_linear(**SIZES, samples=40, keep_inputs=True), True),
    "linear, noisy": (
        lambda: lt.sample_linear(**SIZES, samples=40, keep_inputs=True, noise_std=0.1),
        True,
    ),
    "relu": (lambda: lt.sample_relu(**SIZES, samples=40, relative_shift=0.2), True),
    "relu, noisy": (
        lambda: lt.sample_relu(**SIZES, samples=40, relative_shift=0.2, noise_std=0.1),
        True,
    ),
    "relu population": (lambda: lt.sample_relu_population(**SIZES, relative_shift=0.2), False),
    "a loss": (from_data, None),
    "dense": (lambda: lt.sample_sensing(ensemble="dense", **SIZES, measurements=60), None),
    "completion": (
        lambda: lt.sample_sensing(ensemble="completion", **SIZES, measurements=60),
        None,
    ),
}
STREAMS = {
    "all rows": {},
    "rows": {"batch_size": 8},
    "epochs": {"batch_size": 8, "sampling": "epochs"},
    "fresh": {"batch_size": 8, "sampling": "fresh"},
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("method", ["lora-one", "lora-ga"])
def test_a_subclass_is_obeyed_in_every_stream_of_rows(kind, stream, method):
    """Twice the gradient at half the rate is the same path, of twice the loss."""
    make, streams = EACH[kind]
    if stream != "all rows" and not streams and (streams is False or stream == "fresh"):
        pytest.skip("it has no such rows")
    plain = make()
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    subclass = doubled(type(plain))(**{**fields, "recipe": None})
    given = {"rank": 2, "steps": 6, **STREAMS[stream]}
    expected = lt.simulate(plain, method, learning_rate=0.05, reduce="never", **given)
    found = lt.simulate(subclass, method, learning_rate=0.025, **given)
    # Six steps of products over 60 measurements at the most; factors are of size one.
    allowed = rounding(60, operations=4 * 6)
    scale = float(expected.final.dense().norm())
    gap = (found.final.dense() - expected.final.dense()).norm()
    assert float(gap) <= allowed * scale
    torch.testing.assert_close(found["loss"], 2 * expected["loss"], rtol=20 * allowed, atol=allowed)


def test_who_has_no_prediction_is_sent_to_what_works():
    """ReLU problems to their own predictions, others to what measures them."""
    relu = lt.sample_relu_population(d=5, k=4, true_rank=1, relative_shift=0.1, seeds=[0])
    with pytest.raises(TypeError, match=r"predict\.relu holds what is known of the ReLU model"):
        lt.predict.plateau(relu)
    own = lt.from_loss(lambda W: torch.logaddexp(W, -W).sum(), d=5, k=4)
    with pytest.raises(TypeError, match=r'got LossProblem; lt\.tune_step .* record "sharpness"'):
        lt.predict.plateau(own)
    step = lt.tune_step(own, "lora", rank=2, steps=5).learning_rate
    run = lt.simulate(own, "lora", rank=2, steps=5, learning_rate=step, record=("sharpness",))
    assert torch.isfinite(run["sharpness"]).all()


def test_predictions_are_of_exactly_their_class():
    """Those of the linear model say nothing of a problem with a ridge."""
    problem = stiffer()
    for predicted in (lt.predict.floor, lt.predict.contraction):
        with pytest.raises(TypeError, match="one of the linear model; got Stiffer"):
            predicted(problem, "lora-one", rank=2)
    with pytest.raises(TypeError, match="one of the linear model; got Stiffer"):
        lt.predict.plateau(problem)
    run = lt.simulate(problem, "lora-one", rank=1, learning_rate=0.1, steps=3)
    assert all(len(ax.lines) == 1 for ax in run.plot().axes)  # no floor is drawn
    ahead = lt.predict.outlook(problem, "lora-one", rank=2)
    assert bool(torch.isnan(torch.as_tensor(ahead.floor)).all())
    assert ahead.notes == ("no prediction: none is known of a Stiffer",)


def test_no_floor_is_predicted_where_none_is_known():
    """Of noisy ReLU labels, which no shift fits, and of a loss that nothing is known of."""
    noisy = lt.sample_relu(**SIZES, samples=40, relative_shift=0.2, noise_std=0.1)
    for problem, note in ((noisy, "noisy labels"), (from_data(), "known of a LossProblem")):
        for method in ("lora-one", "lora-one-preconditioned"):
            ahead = lt.predict.outlook(problem, method, rank=2)
            assert bool(torch.isnan(torch.as_tensor(ahead.floor)).all())
            assert any(note in told for told in ahead.notes)
