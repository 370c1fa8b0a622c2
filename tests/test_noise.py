"""Label noise in the linear model: against X and Y themselves, and in law."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.problems.base import facts

# Seven statistics are compared: 1e-6 in all, as every sampling test of the suite.
FALSE_ALARM = 1e-6 / 7


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


# Products over N, d and k, at most 40 + 9 + 7, one after another; the entries that cancel to a
# tenth of their terms are compared with the largest one.
ONCE = rounding(56, operations=2, condition=10)


def close(found: torch.Tensor, expected: torch.Tensor, relative: float = ONCE) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())


@pytest.mark.parametrize("N", [5, 8, 30])
@pytest.mark.parametrize("known", [True, False])
def test_loss_and_gradients_from_the_labels_themselves(N: int, known: bool) -> None:
    """L = ‖X(W_f + AB) − Y‖²/2N and its derivatives; N below, at and above d = 8."""
    X, Y, W = draw(2, N, 8), draw(2, N, 6), draw(8, 6)
    shift = draw(8, 2) @ draw(2, 6) if known else None
    problem = lt.LinearProblem.from_data(X, labels=Y, pretrained=W, shift=shift)
    offset = Factors(draw(8, 1), draw(1, 6))
    for given, minus in ((problem, 0 * W), (problem.with_offset(offset), offset.dense())):
        A, B = (M.requires_grad_() for M in (draw(3, 2, 8, 3), draw(3, 2, 3, 6)))
        loss = ((X @ (W - minus + A @ B) - Y) ** 2).sum((-2, -1)) / (2 * N)
        expected = torch.autograd.grad(loss.sum(), (A, B))
        F = Factors(A.detach(), B.detach())
        close(given.loss(F), loss.detach())
        for found, wanted in zip(given.gradients(F), expected, strict=True):
            close(found, wanted)
        if known:
            E = F.dense() - shift - minus
            close(given.loss(F, given.residual(F)), loss.detach())
            close(given.risk(F), 0.5 * (E**2).sum((-2, -1)))
    close(problem.one_step_gradient().dense(), X.mT @ (Y - X @ W) / N)


@pytest.mark.parametrize("N", [6, 40])
@pytest.mark.parametrize("method", ["lora-one", "lora", "lora-ga", "lora-sb", "full", "p-lora"])
def test_a_run_on_noisy_labels(method: str, N: int) -> None:
    """Reduced, in place and step by step: the same path as full fine-tuning code would take."""
    X, W, shift = draw(N, 9), draw(9, 7), 0.5 * draw(9, 2) @ draw(2, 7)
    Y = X @ (W + shift) + 0.3 * draw(N, 7, seed=1)
    problem = lt.LinearProblem.from_data(X, labels=Y, pretrained=W, shift=shift)
    options = {
        "rank": 3,
        "learning_rate": 0.02,
        "steps": 25,
        "damping": 0.1 if method == "p-lora" else 0.0,
    }
    auto, never = (lt.simulate(problem, method, reduce=r, **options) for r in ("auto", "never"))
    # 25 contractive steps of four products at condition numbers below 100.
    allowed = rounding(56, operations=4 * 25, condition=100)
    close(auto.final.dense(), never.final.dense(), allowed)
    for record in ("loss", "risk"):
        close(auto[record], never[record], allowed)
    learned = never.final.dense() * never.scale
    if never.offset is not None:
        learned = learned - never.offset.dense()
    miss = X @ (W + learned) - Y
    close(never["loss"][-1], ((miss**2).sum((-2, -1)) / (2 * N)).reshape(-1))


def test_gradient_descent_longhand() -> None:
    X, Y = draw(30, 6), draw(30, 5)
    problem = lt.LinearProblem.from_data(X, labels=Y)
    A, B = 0.3 * draw(6, 2), 0.3 * draw(2, 5)
    run = lt.simulate(
        problem, "lora", rank=2, learning_rate=0.05, steps=40, initial=Factors(A, B),
        record=("loss",),
    )  # fmt: skip
    for _ in range(40):
        J = X.mT @ (X @ A @ B - Y) / 30
        A, B = A - 0.05 * J @ B.mT, B - 0.05 * A.mT @ J
    # 40 steps of two products on either side, over N + d + k.
    close(run.final.dense().reshape(6, 5), A @ B, rounding(41, operations=4 * 40))


def test_few_columns_of_many() -> None:
    """k far above d: the reduction keeps row(Ỹ) and V, and the answer."""
    X, shift = draw(12, 4), draw(4, 1) @ draw(1, 50)
    problem = lt.LinearProblem.from_data(X, labels=X @ shift + draw(12, 50), shift=shift)
    small = lt.reduce(problem).problem
    assert small.k == 4 + 1
    auto, never = (
        lt.simulate(problem, "lora-one", rank=2, learning_rate=0.01, steps=20, reduce=reduce)
        for reduce in ("auto", "never")
    )
    # 20 steps of four products over N + d + k; Σ̂ of 12 samples in 4 dimensions.
    allowed = rounding(66, operations=4 * 20, condition=10)
    close(auto["loss"], never["loss"], allowed)
    close(auto["risk"], never["risk"], allowed)


def test_labels_alone() -> None:
    """What compares with Δ is not known and says so; the loss goes down to the least there is."""
    X, Y = draw(40, 6), draw(40, 5)
    problem = lt.LinearProblem.from_data(X, labels=Y)
    known = facts(problem)
    assert (known.shift, known.true_rank, known.risk, known.residual) == (None,) * 4
    assert not known.takes_residual
    assert (problem.d, problem.k, problem.samples) == (6, 5, 40)
    run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.2, steps=600, record=("loss",))
    fitted = torch.linalg.lstsq(X, Y).solution
    beyond = ((Y - X @ fitted) ** 2).sum() / 80
    tail = torch.linalg.svdvals(X @ fitted)[2:] ** 2 / 80
    # Two sums of 40 rows, and 600 steps that err by their own rounding at most.
    expected = pytest.approx(float(beyond + tail.sum()), rel=rounding(40, operations=2 + 600))
    assert float(run["loss"][-1]) == expected


def test_no_digits_are_lost_at_the_minimum() -> None:
    """Excess loss at a distance of 1e-7 and 1e-10 from the minimiser, against exact arithmetic."""
    X, Y = draw(40, 5), draw(40, 4)
    problem = lt.LinearProblem.from_data(X, labels=Y)
    best = torch.linalg.lstsq(X, Y).solution
    step = draw(5, 4)
    zero = Factors(best, torch.eye(4).double())
    at_best = problem.covariance.half(best) - problem.noise
    for size in (1e-7, 1e-10):
        R = problem.covariance.half(best + size * step) - problem.noise
        excess = 0.5 * (R**2 - at_best**2).sum()
        exact = 0.5 * size**2 * ((X @ step) ** 2).sum() / 40
        # ‖R‖ is rounding at the minimiser (k <= d, full rank): two products of length d in R, and
        # twice that in its square, over size is what is lost.
        assert float(excess) == pytest.approx(float(exact), rel=rounding(5, operations=4) / size)
    # Least squares of 40 rows and the product with its solution err by this.
    wrong = rounding(40, operations=2) * torch.linalg.matrix_norm(Y)
    assert float(problem.loss(zero) - problem.constant) < 0.5 * wrong**2


def test_minibatches_keep_their_noise() -> None:
    problem = lt.sample_linear(
        d=6, k=4, true_rank=2, samples=20, noise_std=0.5, keep_inputs=True, seeds=(0, 1)
    )
    indices = torch.tensor([[3, 7, 7], [0, 19, 2]])
    some = problem.batch(indices)
    F = Factors(draw(2, 6, 2), draw(2, 2, 4))
    for i in range(2):
        X, Z = problem.inputs[i, indices[i]], problem.row_noise[i, indices[i]]
        miss = X @ (F.A[i] @ F.B[i] - problem.shift.dense()[i]) - Z
        close(some.loss(F)[i], (miss**2).sum() / 6)
        close(some.gradients(F).A[i], X.mT @ miss @ F.B[i].mT / 3)
    fresh = problem.fresh(0, 2000, (0, 1))
    # The loss at Δ is ‖Z‖²/2b: mean kσ²/2 = ½, deviations of √(2/(bk)) of that.
    assert (fresh.loss(problem.shift) - 0.5).abs().max() < 5 * 0.5 * (2 / 8000) ** 0.5


def test_held_out_labels() -> None:
    X, Y, W = draw(30, 5), draw(30, 3), draw(5, 3)
    held = lt.LinearProblem.from_data(
        X[:20], labels=Y[:20], pretrained=W, held_out=(X[20:], Y[20:])
    )
    F = Factors(draw(5, 2), draw(2, 3))
    close(held.test_loss(F), ((X[20:] @ (W + F.dense()) - Y[20:]) ** 2).sum() / 20)


def test_without_noise_nothing_changes() -> None:
    sizes = {"d": 8, "k": 6, "true_rank": 2, "samples": 40, "seeds": (0, 3)}
    for sampler in (lt.sample_linear, lt.sample_linear_matrix_free):
        clean, noisy = sampler(**sizes), sampler(**sizes, noise_std=0.1)
        assert clean.noise is None
        assert clean.constant is None
        assert torch.equal(clean.shift.A, noisy.shift.A)
        assert torch.equal(clean.covariance_spectrum(), noisy.covariance_spectrum())


def test_the_law_of_the_noise() -> None:
    """‖Z̃‖² N/σ² and 2Nc/σ² are χ²_{dk} and χ²_{(N−d)k}."""
    for sampler in (lt.sample_linear, lt.sample_linear_matrix_free):
        problem = sampler(d=6, k=5, true_rank=1, samples=20, noise_std=0.3, seeds=range(400))
        for value, freedom in (
            ((problem.noise**2).sum((-2, -1)) * 20 / 0.09, 30),
            (problem.constant * 40 / 0.09, 70),
        ):
            # Means of 400 χ² of this many degrees: five standard deviations.
            assert float(value.mean()) == pytest.approx(freedom, abs=5 * (2 * freedom / 400) ** 0.5)


@pytest.mark.parametrize("N", [60, 16])
def test_matrix_free_has_the_same_law(N: int) -> None:
    """Two-sample tests of risk, loss and angles after 60 steps, for N above and below d = 24."""
    statistics = []
    for sampler, first in ((lt.sample_linear, 0), (lt.sample_linear_matrix_free, 10**6)):
        seeds = range(first, first + 400)
        problem = sampler(d=24, k=10, true_rank=2, samples=N, noise_std=0.3, seeds=seeds)
        run = lt.simulate(
            problem, "lora-one", rank=4, learning_rate=0.1, steps=60, every=60, seeds=seeds
        )
        G = torch.linalg.svdvals(problem.one_step_gradient().dense())
        sine = lt.metrics.subspace_sine(
            problem.shift.dense(), problem.one_step_gradient().dense(), rank=2
        )
        statistics.append([run["risk"][-1], run["loss"][-1], sine, G[:, 2], G[:, 0]])
    for one, two in zip(*statistics, strict=True):
        assert ks_2samp(one.numpy(), two.numpy()).pvalue > FALSE_ALARM


def test_the_floor_of_full_fine_tuning() -> None:
    """Mean excess risk ½σ²kd/(N − d − 1) of least squares (exact mean)."""
    problem = lt.sample_linear_matrix_free(
        d=10, k=5, true_rank=1, samples=60, noise_std=0.2, seeds=range(200)
    )
    C = torch.diag_embed(problem.covariance.c) + torch.diag_embed(problem.covariance.f, 1)
    excess = 0.5 * (torch.linalg.solve(C, problem.noise) ** 2).sum((-2, -1))
    expected = 0.5 * 0.04 * 50 / 49
    assert float(excess.mean()) == pytest.approx(expected, abs=5 * float(excess.std()) / 200**0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lt.LinearProblem.from_data(draw(5, 3)), "what it is to learn"),
        (lambda: lt.LinearProblem.from_data(draw(5, 3), labels=draw(4, 2)), "one row for each"),
        (
            lambda: lt.LinearProblem.from_data(
                draw(5, 3), labels=draw(5, 2), pretrained=draw(3, 3)
            ),
            "pretrained must be d x k",
        ),
        (
            lambda: lt.LinearProblem.from_data(draw(5, 3), labels=draw(5, 2), shift=draw(2, 2)),
            "shift must be d x k",
        ),
        (
            lambda: lt.LinearProblem.from_data(draw(5, 3), labels=draw(5, 2), held_out=draw(5, 3)),
            r"held_out must be a pair \(X, Y\)",
        ),
        (
            lambda: lt.sample_linear(d=3, k=3, true_rank=1, samples=5, noise_std=-1),
            "noise_std must be finite and >= 0",
        ),
        (
            lambda: lt.sample_linear_matrix_free(
                d=10**5, k=10**5, true_rank=1, samples=2 * 10**5, noise_std=1.0
            ),
            "the label noise .* 80 GB",
        ),
    ],
)
def test_bad_arguments(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
