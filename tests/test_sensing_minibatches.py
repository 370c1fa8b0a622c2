"""Minibatches of matrix sensing: the steps they make, whatever the ensemble."""

import json

import numpy as np
import pytest
import torch
from tolerance import roots, rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import generator
from loraone_theory.dynamics.loop import rerun
from loraone_theory.problems.sensing.operators import OPERATORS, Given
from loraone_theory.problems.sensing.problem import SensingProblem

D, K, RANK, ETA, STEPS = 5, 4, 2, 0.03, 7
ENSEMBLES = [*OPERATORS, "given"]


def problem(name: str, seeds=(0,)) -> SensingProblem:
    k = D if name == "symmetric" else K
    drawn = "dense" if name == "given" else name
    m = 24 * k if name == "multi-response" else 24
    made = lt.sample_sensing(
        ensemble=drawn, d=D, k=k, true_rank=2, measurements=m, noise_std=0.2, seeds=seeds
    )
    if name != "given":
        return made
    a = made.operator.matrices[0]
    own = Given(
        lambda M: (a * M).sum((-2, -1)),
        lambda y: (a * y[:, None, None]).sum(0),
        D, k, 24, torch.empty(0, dtype=torch.float64),
    )  # fmt: skip
    return SensingProblem.from_data(own, made.labels[0], shift=made.shift.dense()[0])


def matrices(made: SensingProblem, instance: int) -> np.ndarray:
    """a (m, d, k), as 𝒜*(e_i)."""
    m = made.measurements
    units = torch.eye(m).double()
    if made.operator.batch_shape:
        units = units[:, None].expand(m, *made.operator.batch_shape, m)
    a = made.operator.adjoint(units)
    return (a[:, instance] if made.operator.batch_shape else a).numpy()


def rows_by_hand(sampling: str, seed: int, t: int, b: int) -> np.ndarray:
    if sampling == "with-replacement":
        return generator(seed, f"batches/{t}").integers(24, size=b)
    per_epoch = -(-24 // b)
    order = generator(seed, f"batches/{t // per_epoch}").permutation(24)
    return order[(t % per_epoch) * b : (t % per_epoch + 1) * b]


def loop(a, y, A, B, sampling, seed, b):
    """Descent on the measurements of each batch, with the matrices a_i; groups of m/24 each."""
    group = len(a) // 24
    for t in range(STEPS):
        chosen = rows_by_hand(sampling, seed, t, b)
        at = (chosen[:, None] * group + np.arange(group)).ravel()
        R = np.tensordot(np.einsum("ipq,pq->i", a[at], A @ B) - y[at], a[at], 1) / len(at)
        A, B = A - ETA * R @ B.T, B - ETA * A.T @ R
    return A @ B


@pytest.mark.parametrize("b", [1, 5, 24])
@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_steps_are_those_of_a_loop_over_the_matrices(name: str, sampling: str, b: int) -> None:
    made = problem(name)
    run = lt.simulate(
        made, "lora", rank=RANK, learning_rate=[0.01, ETA], steps=STEPS, seeds=(4, 9),
        init_std=0.3, batch_size=b, sampling=sampling,
    )  # fmt: skip
    a, y = matrices(made, 0), made.labels.reshape(-1, made.measurements)[0].numpy()
    for i, seed in enumerate((4, 9)):
        start = (run.initial.A[1, i].numpy(), run.initial.B[1, i].numpy())
        expected = loop(a, y, *start, sampling, seed, b)
        found = (run.final.A[1, i] @ run.final.B[1, i]).numpy()
        # A step adds sums of at most md products; a is of size √(dk), squared in 𝒜*𝒜.
        allowed = rounding(D * K, operations=STEPS, condition=len(a))
        assert np.abs(found - expected).max() <= allowed * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", OPERATORS)
def test_instances_take_measurements_of_their_own(name: str) -> None:
    options = {"rank": RANK, "learning_rate": ETA, "steps": STEPS, "batch_size": 5}
    both = lt.simulate(problem(name, (2, 6)), "lora", **options)
    for i, seed in enumerate((2, 6)):
        alone = lt.simulate(problem(name, (seed,)), "lora", **options)
        # Four sums over D·K or a batch in each step.
        roots(both["loss"][:, i], alone["loss"][:, 0], rounding(D * K + 5, operations=4 * STEPS))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_single_samples_average_to_the_whole_gradient(name: str) -> None:
    made = problem(name)
    rng = np.random.default_rng(3)
    F = Factors(*(torch.from_numpy(rng.standard_normal(s)) for s in ((D, 2), (2, made.k))))
    whole = made.gradients(F)
    wide = made if made.operator.batch_shape == () else problem(name, (0,))
    parts = wide.batch(torch.arange(24)[:, None]).gradients(F)
    for one, mean in zip(whole, parts, strict=True):
        expected = one if one.ndim == 2 else one[0]
        # Means over 24 samples of sums over D·K, two on either side, of the largest sample's size.
        allowed = rounding(24 + D * K, operations=4) * float(mean.abs().max())
        torch.testing.assert_close(mean.mean(0), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs", "fresh"])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_trial_depends_on_its_seed_alone_and_a_run_is_rebuilt(name: str, sampling: str) -> None:
    made = problem(name)
    options = {"rank": RANK, "steps": 6, "batch_size": 4, "sampling": sampling, "init_std": 0.3}
    many = lt.simulate(made, "lora", learning_rate=ETA, seeds=(7, 3, 5), **options)
    one = lt.simulate(made, "lora", learning_rate=ETA, seeds=(3,), **options)
    roots(many["loss"][:, 1], one["loss"][:, 0], rounding(D * K + 4, operations=4 * 6))
    again = rerun(json.loads(json.dumps(many.config)))
    assert torch.equal(again["loss"], many["loss"])


DRAWS = 4000


@pytest.mark.parametrize("name", ["dense", "rank-one", "multi-response"])
def test_moments_of_fresh_measurements(name: str) -> None:
    """E ĝ = E and E‖ĝ − E‖² = (c‖E‖² + σ²dk)/b, a batch of b samples."""
    sigma, b = 0.3, 3
    made = lt.sample_sensing(
        ensemble=name, d=3, k=2, true_rank=1, measurements=8, noise_std=sigma, seeds=(0,)
    )
    M = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 2)))
    E = M - made.shift.dense()[0]
    drawn = made.fresh(5, b, range(DRAWS))
    g = drawn.gradients(Factors(M, torch.eye(2).double())).A
    # Two-sided normal tails at 6 are 2e-9, and at most seven numbers are looked at.
    assert ((g.mean(0) - E).abs() <= 6 * g.std(0) / DRAWS**0.5).all()
    squares = (g - E).square().sum((-2, -1))
    expected = lt.predict.stochastic.gradient_variance(
        float(E.norm()), d=3, k=2, batch=b, noise_std=sigma, ensemble=name
    )
    assert abs(float(squares.mean()) - expected) <= 6 * float(squares.std()) / DRAWS**0.5


def test_refusals() -> None:
    own = problem("given")
    options = {"rank": 1, "learning_rate": 0.1, "steps": 2}
    cases = [
        (own, {"batch_size": 2, "sampling": "fresh"}, "the law of the rows"),
        (own, {"batch_size": 25, "sampling": "epochs"}, "batch_size=25 with N=24"),
        (
            lt.sample_dense_lazy(d=4, k=4, true_rank=1, measurements=60, steps=9),
            {"batch_size": 2},
            "this LazyDenseProblem has none",
        ),
    ]
    for made, more, message in cases:
        with pytest.raises(ValueError, match=message):
            lt.simulate(made, "lora", **options, **more)
    with pytest.raises(ValueError, match="indices must be from 0 to N - 1"):
        own.batch(torch.tensor([0, 24]))
