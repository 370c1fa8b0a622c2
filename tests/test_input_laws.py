"""Inputs that are not isotropic Gaussian, fewer samples than inputs, and noise on ReLU labels."""

import numpy as np
import pytest
import tolerance
import torch
from tolerance import roots, rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.predict.compare import compare

SIZES = {"d": 8, "k": 6, "true_rank": 2, "samples": 40}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 31),
        ({"inputs": "rademacher"}, 29),
        ({"inputs": "sphere"}, 29),
        ({"inputs": "student", "freedom": 12.0}, 31 + 6 / 8),
        ({"inputs": "elliptic", "freedom": 20.0}, 32 * 18 / 16 - 1),
        ({"inputs": lambda rng, N, d: rng.uniform(-(3**0.5), 3**0.5, (N, d))}, 28 + 9 / 5),
    ],
    ids=["gaussian", "rademacher", "sphere", "student", "elliptic", "callable"],
)
def test_the_error_of_the_one_step_gradient(options: dict, expected: float) -> None:
    """N·E‖(Σ̂ − I)v‖² = E[‖x‖²(v·x)²] − 1: d − 2 + E z⁴ for independent entries, else d − 1."""
    problem = lt.sample_linear(d=30, k=1, true_rank=1, samples=120, seeds=range(300), **options)
    miss = problem.one_step_gradient().dense() - problem.shift.dense()
    values = 120 * (miss**2).sum((-2, -1))
    error = float(values.std()) / 300**0.5
    assert float(values.mean()) == pytest.approx(expected, abs=5 * error)
    assert error < 0.05 * expected


def spd(d: int) -> torch.Tensor:
    M = draw(d, d)
    return M @ M.mT / d + 0.5 * torch.eye(d)


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_the_risk_is_that_of_the_population(form: str) -> None:
    """½ tr(EᵀΣE), reduced or not; Σ̂ tends to Σ."""
    sigma = spd(8) if form == "full" else torch.linspace(0.5, 3, 8).double()
    matrix = sigma if form == "full" else torch.diag(sigma)
    problem = lt.sample_linear(**SIZES, covariance=sigma, seeds=(0, 1))
    F = Factors(draw(2, 8, 3), draw(2, 3, 6))
    E = F.dense() - problem.shift.dense()
    expected = 0.5 * torch.einsum("nik,ij,njk->n", E, matrix, E)
    # A positive form: residual, Σ and the sum, over d = 8, r = 3 and dk = 48.
    torch.testing.assert_close(problem.risk(F), expected, rtol=rounding(59, operations=2), atol=0)
    options = {"rank": 3, "learning_rate": 0.05, "steps": 30, "seeds": (0, 1)}
    auto, never = (
        lt.simulate(problem, "lora-one", reduce=reduce, **options) for reduce in ("auto", "never")
    )
    # 30 contractive steps of two products on either side.
    roots(auto["risk"], never["risk"], rounding(40, operations=4 * 30))
    many = lt.sample_linear(**(SIZES | {"samples": 20_000}), covariance=sigma)
    # Entries of Σ̂ have standard deviations of at most √2‖Σ‖/√N.
    gap = (many.covariance.matrix - matrix).abs().max()
    assert gap < 6 * 2**0.5 * float(torch.linalg.matrix_norm(matrix, 2)) / 20_000**0.5


def test_the_population_problem_of_a_covariance() -> None:
    """At N = ∞ loss and risk are one, and G = ΣΔ."""
    sigma, shift = spd(8), draw(8, 2) @ draw(2, 6)
    problem = lt.LinearProblem.population(shift=shift, covariance=sigma)
    F = Factors(draw(8, 3), draw(3, 6))
    torch.testing.assert_close(problem.loss(F), problem.risk(F), rtol=rounding(59), atol=0)
    tolerance.close(problem.one_step_gradient().dense(), sigma @ shift, rounding(8, operations=4))
    run = lt.simulate(problem, "lora-one-preconditioned", rank=2, learning_rate=0.3, steps=400)
    # Entries move until a step of 0.3 is less than what sums of 8 terms round, of size ‖Δ‖.
    moved = rounding(8, operations=4 / 0.3) * float(torch.linalg.matrix_norm(sigma @ shift))
    assert float(run["risk"][-1]) < moved**2


def test_fresh_rows_follow_the_law() -> None:
    problem = lt.sample_linear(
        **SIZES, inputs="rademacher", covariance=torch.linspace(1, 4, 8).double(), noise_std=0.1
    )
    X = problem.fresh(0, 50, (0,)).covariance.inputs
    sizes = torch.linspace(1, 4, 8).double().sqrt()
    # A product of length 8 with one term that is not 0, and a root.
    torch.testing.assert_close(X.abs(), sizes.expand(1, 50, 8), rtol=rounding(8), atol=0)
    for heavy in ("student", "elliptic"):
        assert lt.sample_linear(**SIZES, inputs=heavy).fresh is None


@pytest.mark.parametrize("sampler", [lt.sample_linear, lt.sample_linear_matrix_free])
def test_fewer_samples_than_inputs(sampler) -> None:
    """From Spectral-init A never leaves row(X): an interpolating run ends at AB = P_XΔ."""
    problem = sampler(d=30, k=8, true_rank=2, samples=20, seeds=(0, 1))
    run = lt.simulate(
        problem, "lora-one-preconditioned", rank=2, learning_rate=0.1, steps=3000, seeds=(0, 1)
    )
    eye = torch.eye(30).double().expand(2, 30, 30)
    values, Q = torch.linalg.eigh(problem.covariance.apply(eye))
    seen = Q * (values > 1e-10)[..., None, :]
    projected = seen @ seen.mT @ problem.shift.dense()
    # Preconditioned descent contracts by 1 − ηλ at least, λ the least eigenvalue of Σ̂ on row(X).
    least = values[values > 1e-10].reshape(2, -1).amin(-1)
    start = torch.linalg.matrix_norm(run.initial.dense() - projected)
    left = (1 - 0.1 * least) ** 3000 * torch.linalg.cond(problem.shift.dense()[..., :2])
    gap = torch.linalg.matrix_norm(run.final.dense() - projected)
    assert (gap < left * start).all()
    # The form rounds at the size of Σ̂ and of Δ, most of which it does not see.
    rounded = rounding(30) * torch.linalg.matrix_norm(problem.shift.dense()) ** 2
    assert (run["loss"][-1] < ((left * start) ** 2 + rounded) * values.amax(-1)).all()


def test_noisy_relu_labels() -> None:
    """Loss and gradients from Y itself; the risk is that of clean labels."""
    sizes = {"d": 6, "k": 5, "true_rank": 2, "samples": 30, "relative_shift": 0.2}
    clean, noisy = (lt.sample_relu(**sizes, seeds=(0, 1), **o) for o in ({}, {"noise_std": 0.4}))
    assert torch.equal(clean.inputs, noisy.inputs)
    Y = (noisy.inputs @ (noisy.pretrained + noisy.shift.dense())).relu() + noisy.noise
    A, B = (M.requires_grad_() for M in (draw(2, 6, 2), draw(2, 2, 5)))
    loss = (((noisy.inputs @ (noisy.pretrained + A @ B)).relu() - Y) ** 2).sum((-2, -1)) / 60
    expected = torch.autograd.grad(loss.sum(), (A, B))
    F = Factors(A.detach(), B.detach())
    once = rounding(30 + 6, operations=4)  # two sums over N and d on either side
    torch.testing.assert_close(noisy.loss(F), loss.detach(), rtol=once, atol=0)
    for found, wanted in zip(noisy.gradients(F), expected, strict=True):
        tolerance.close(found, wanted, once)
    assert torch.equal(clean.risk(F), noisy.risk(F))
    many = lt.sample_relu(**(sizes | {"samples": 4000}), noise_std=0.4)
    # ‖Z‖²/2N: mean σ²k/2 = 0.4, relative deviation √(2/(Nk)).
    assert float(many.loss(many.shift)) == pytest.approx(0.4, rel=5 * (2 / 20_000) ** 0.5)


def test_predictions_of_noisy_relu_labels() -> None:
    """No floor of 0 where the labels have noise, a reason for each number that there is not."""
    noisy = lt.sample_relu(
        d=8, k=6, true_rank=2, samples=400, relative_shift=0.2, noise_std=0.05, seeds=(0, 1)
    )
    for name in ("lora", "lora-one-preconditioned", "full"):
        ahead = lt.predict.outlook(noisy, name, rank=2)
        assert np.isnan(ahead.floor).all()
        assert torch.isnan(ahead.near.extremes).all()
        assert any("no floor" in note for note in ahead.notes)
    near = lt.predict.relu_contraction(noisy)
    assert torch.isnan(near.extremes).all()
    assert "label noise moves" in near.notes[0]
    row = compare(noisy, rank=2, steps=60, names=["lora-one-preconditioned"]).rows[0]
    assert row.chosen_by == "grid"
    # σ²k/2 is the loss at Δ in the mean, of relative deviation √(2/(Nk)); a fit ends below it.
    assert ((0 < row.reached) & (row.reached < 0.05**2 * 3 * (1 + 5 * (2 / 2400) ** 0.5))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "gauss"}, "inputs must be one of .* did you mean 'gaussian'"),
        ({"inputs": "student", "freedom": 2.0}, "must be > 2"),
        ({"covariance": torch.ones(7).double()}, r"\(d, d\) or its diagonal"),
        ({"covariance": -torch.ones(8).double()}, "positive definite"),
        ({"covariance": torch.ones(8, 8).double().triu()}, "must be symmetric"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lt.sample_linear(**SIZES, **options)


@pytest.mark.parametrize(
    "law",
    [
        lambda rng, N, d: np.ones((N, d + 1)),
        lambda rng, N, d: None,
        lambda rng, N, d: np.full((N, d), np.nan),
    ],
    ids=["shape", "nothing", "nan"],
)
def test_laws_of_ones_own_that_do_not_fit(law) -> None:
    with pytest.raises(ValueError, match=r"inputs must return finite rows of shape \(N, d\)"):
        lt.sample_linear(**SIZES, inputs=law)


def test_rates_under_a_covariance_say_what_they_take_for_granted() -> None:
    """Spectral-init starts at ΣΔ there: large steps unbalance the factors on the way."""
    size = {"d": 6, "k": 5, "true_rank": 2, "samples": 200}
    wide = lt.sample_linear(**size, covariance=np.array([3.0, 2, 1, 1, 1, 0.5]))
    assert any("O(eta^2)" in n for n in lt.predict.contraction(wide, "lora-one", rank=2).notes)
    assert lt.predict.contraction(lt.sample_linear(**size), "lora-one", rank=2).notes == ()


def test_whitened_descent_is_that_of_the_white_problem() -> None:
    """With A′ = Σ^{1/2}A, Δ′ = Σ^{1/2}Δ and z: the same AB′, where plain preconditioning is not."""
    sigma = spd(8)
    values, V = torch.linalg.eigh(sigma)
    root = (V * values.sqrt()) @ V.mT
    Z, shift = draw(40, 8), draw(8, 2) @ draw(2, 6)
    start = Factors(draw(8, 3), draw(3, 6))
    white = Factors(root @ start.A, start.B)
    problems = (
        lt.LinearProblem.from_data(Z @ root, shift=shift),
        lt.LinearProblem.from_data(Z, shift=root @ shift),
    )
    options = {"rank": 3, "learning_rate": 0.1, "steps": 20, "record": ("loss",)}
    one = lt.simulate(
        problems[0], lt.methods.whitened_preconditioned(sigma), initial=start, **options
    )
    two = lt.simulate(problems[1], "lora-one-preconditioned", initial=white, **options)
    other = lt.simulate(problems[0], "lora-one-preconditioned", initial=start, **options)
    # 20 steps of four products at a condition number of Σ and of the Gram matrices below 100 each.
    allowed = rounding(8, operations=4 * 20, condition=100 * 100)
    tolerance.close(root @ one.final.dense(), two.final.dense(), allowed)
    roots(one["loss"], two["loss"], allowed)
    gap = torch.linalg.matrix_norm(root @ other.final.dense() - two.final.dense())
    assert float(gap.max()) > 1e-3
    with pytest.raises(ValueError, match="symmetric positive definite"):
        lt.methods.whitened_preconditioned(-sigma)
