"""Noise floors and one-step errors: printed figures, explicit traces, and draws written out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tolerance import printed, rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing.sampling import sample_sensing


def test_the_printed_figures() -> None:
    """d = k = 40, N = 400, r* = 2, λ* = 1, σ = 0.1."""
    size = {"samples": 400, "d": 40, "k": 40, "noise_std": 0.1}
    assert lt.predict.mean_full_floor(**size) == pytest.approx(0.02228, abs=printed(5))
    two = lt.predict.mean_noise_floor(rank=2, **size)
    assert two == pytest.approx(0.002071, abs=printed(6))
    # 200 matrices: each s_1² is known to a few per cent, their mean to 0.3 %.
    three, eight = (two + lt.predict.surplus(rank=r, true_rank=2, **size) for r in (3, 8))
    assert three == pytest.approx(0.004027, rel=0.01)
    assert eight == pytest.approx(0.01121, rel=0.01)
    problem = lt.sample_linear(d=40, k=40, true_rank=2, samples=400)
    one = 0.5 * lt.predict.one_step_error(problem, noise_std=0.1)
    assert float(one) == pytest.approx(0.1045, abs=printed(4))
    threshold = math.sqrt(41 * 2 / (2 * 78))  # one step within a factor 2 of the floor from here
    assert threshold == pytest.approx(0.73, abs=printed(2))


@pytest.mark.parametrize(
    ("ensemble", "m", "expected"),
    [("dense", 1500, 0.062), ("rank-one", 1500, 0.127), ("multi-response", 2304, 0.260)],
)
def test_the_printed_one_step_errors(ensemble: str, m: int, expected: float) -> None:
    """d = k = 24, r = 2, relative to ‖Δ‖²."""
    problem = sample_sensing(ensemble=ensemble, d=24, k=24, true_rank=2, measurements=m)
    found = float(lt.predict.one_step_error(problem)) / 2
    assert found == pytest.approx(expected, abs=printed(3))


def explicit_floor(rows: np.ndarray, U: np.ndarray, V: np.ndarray, sigma: float) -> float:
    """½σ²tr((P_TKP_T)†) with P_T = I − (I − UUᵀ) ⊗ (I − VVᵀ) as a dk×dk matrix."""
    d, k = len(U), len(V)
    P = np.eye(d * k) - np.kron(np.eye(d) - U @ U.T, np.eye(k) - V @ V.T)
    K = rows.T @ rows / len(rows)
    return 0.5 * sigma**2 / len(rows) * np.trace(np.linalg.pinv(P @ K @ P, rcond=1e-10))


@pytest.mark.parametrize("ensemble", ["dense", "rank-one", "single-response", "completion"])
def test_floors_against_the_explicit_trace(ensemble: str) -> None:
    problem = sample_sensing(ensemble=ensemble, d=6, k=5, true_rank=2, measurements=120, seeds=[4])
    eye = torch.eye(30, dtype=torch.float64).reshape(-1, 6, 5)
    ones = torch.eye(5, dtype=torch.float64)
    rows = torch.stack(
        [problem.operator.forward(lt.Factors(E[None], ones[None]))[0] for E in eye], 1
    ).numpy()
    U, _, V = (part[0].numpy() for part in lt.linalg.truncated_svd(problem.shift, 2))
    expected = explicit_floor(rows, U, V, 0.2)
    # Least squares over 120 measurements, of forms at condition numbers below 100.
    assert float(lt.predict.noise_floor(problem, noise_std=0.2)) == pytest.approx(
        expected, rel=rounding(120, operations=4, condition=100)
    )


@pytest.mark.parametrize(("d", "k"), [(6, 1), (1, 5), (2, 2)])
def test_floors_where_the_rank_is_a_full_one(d: int, k: int) -> None:
    """T is all of R^{dk}: ½σ²tr(K⁻¹)/m."""
    r = min(d, k)
    problem = sample_sensing(ensemble="dense", d=d, k=k, true_rank=r, measurements=60)
    rows = problem.operator.matrices[0].flatten(1).numpy()
    expected = 0.5 * 0.1**2 * np.trace(np.linalg.inv(rows.T @ rows))
    # Least squares over 60 measurements, of forms at condition numbers below 100.
    assert float(lt.predict.noise_floor(problem, noise_std=0.1)) == pytest.approx(
        expected, rel=rounding(60, operations=4, condition=100)
    )


def test_the_linear_floor_is_the_multi_response_one() -> None:
    """The same rows at every output; a multi-response measurement carries √k times the noise."""
    sensed = sample_sensing(
        ensemble="multi-response", d=6, k=5, true_rank=2, measurements=100, seeds=[4]
    )
    eye = torch.eye(6, dtype=torch.float64)
    columns = [
        sensed.operator.forward(lt.Factors(e[None, :, None], torch.eye(1, 5).double()[None]))[0]
        for e in eye
    ]
    X = torch.stack(columns, 1).reshape(20, 5, 6)[:, 0] / math.sqrt(5)
    linear = lt.LinearProblem.from_data(X, shift=sensed.shift.dense()[0])
    here = lt.predict.noise_floor(linear, noise_std=0.3)
    there = lt.predict.noise_floor(sensed, noise_std=0.3)
    # Least squares over 100 measurements, of forms at condition numbers below 100.
    wrong = rounding(100, operations=4, condition=100)
    torch.testing.assert_close(there.reshape(()), here.reshape(()), rtol=wrong, atol=0)


def test_the_linear_floor_is_where_noisy_fits_end() -> None:
    """C⁻¹·(best rank-2 of C(Δ + Σ̂⁻¹XᵀZ/N)) of 400 noises on one X, σ = 0.02: to 4 errors."""
    rng, d, k, N, sigma = np.random.default_rng(5), 8, 7, 60, 0.02
    X = rng.standard_normal((N, d))
    U, V = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (d, k))
    problem = lt.LinearProblem.from_data(X, shift=U @ V.T)
    C = np.linalg.cholesky(X.T @ X / N).T
    risks = []
    for _ in range(400):
        Z = sigma * rng.standard_normal((N, k))
        Y = C @ (U @ V.T) + np.linalg.solve(C.T, X.T @ Z / N)
        left, S, right = np.linalg.svd(Y)
        E = np.linalg.solve(C, (left[:, :2] * S[:2]) @ right[:2]) - U @ V.T
        risks.append(0.5 * np.sum(E**2))
    error = np.std(risks) / math.sqrt(len(risks))
    predicted = float(lt.predict.noise_floor(problem, noise_std=sigma))
    # Second order in σ(√d + √k)/√N = 0.014: its square, a few times over, is far below the error.
    assert abs(np.mean(risks) - predicted) <= 4 * error


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
def test_the_linear_floor_beyond_the_true_rank(rank: int, coloured: bool) -> None:
    """Risks ½tr(EᵀΣE) of 4000 noises on one X of few rows, σ = 1e-3, r* = 2: to 4 errors."""
    rng, d, k, N, sigma, count = np.random.default_rng(7), 6, 5, 20, 1e-3, 4000
    law = np.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.2]) if coloured else np.ones(d)
    X = rng.standard_normal((N, d)) * law**0.5
    U, V = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (d, k))
    problem = lt.LinearProblem.from_data(X, shift=U @ V.T)
    if coloured:
        Sigma = lt.LinearProblem.population(shift=U @ V.T, covariance=law).population_covariance
        problem = dataclasses.replace(problem, population_covariance=Sigma)
    C = np.linalg.cholesky(X.T @ X / N).T
    Z = sigma * rng.standard_normal((count, N, k))
    Y = C @ (U @ V.T) + np.linalg.solve(C.T, X.T @ Z / N)
    left, S, right = np.linalg.svd(Y, full_matrices=False)
    fit = (left[..., :rank] * S[:, None, :rank]) @ right[:, :rank]
    E = np.linalg.solve(C, fit) - U @ V.T
    risks = 0.5 * np.sum(law[:, None] * E**2, (1, 2))
    predicted = float(lt.predict.noise_floor(problem, noise_std=sigma, rank=rank))
    # The mean of s_i² is over that many Gaussian matrices of 4·3 entries, whose sum of squares has
    # the relative variance 2/12.
    draws = 0.25 * predicted * (2 / 12 / (lt.predict.noise.NUMBERS // 12)) ** 0.5
    error = np.std(risks) / math.sqrt(count)
    # First order in σ/√N over the least singular value of C.
    second = sigma / math.sqrt(N) / np.linalg.svd(C)[1][-1] * 10 * predicted
    assert abs(np.mean(risks) - predicted) <= 4 * (error + draws) + second
    # With all of R^d in place of what is off CU the surplus is another one.
    base = float(lt.predict.noise_floor(problem, noise_std=sigma))
    inverse = np.trace(np.diag(law) @ np.linalg.inv(X.T @ X / N))
    inner = np.trace(U.T @ np.diag(law) @ U @ np.linalg.inv(U.T @ X.T @ X @ U / N))
    plain = base + (predicted - base) * inverse / d * (d - 2) / (inverse - inner)
    assert abs(np.mean(risks) - plain) > 8 * error


def test_floors_of_full_rank_are_least_squares() -> None:
    """½σ²k tr Σ̂⁻¹/N of the linear model and of multi-response; ½σ²tr(K⁻¹)/m of any measurements."""
    sensed = sample_sensing(
        ensemble="multi-response", d=6, k=5, true_rank=2, measurements=100, seeds=(4, 5)
    )
    X = sensed.operator.X
    linear = lt.LinearProblem.from_data(X, shift=sensed.shift)
    Sigma = X.mT @ X / 20
    expected = 0.3**2 / 40 * 5 * torch.linalg.inv(Sigma).diagonal(dim1=-2, dim2=-1).sum(-1)
    # Least squares over 100 measurements, of forms at condition numbers below 100.
    wrong = rounding(100, operations=4, condition=100)
    for problem in (sensed, linear):
        found = lt.predict.noise_floor(problem, noise_std=0.3, rank=5)
        torch.testing.assert_close(found, expected, rtol=wrong, atol=0)
    made = {"d": 4, "k": 6, "true_rank": 2, "measurements": 70, "seeds": (1, 2, 3)}
    for ensemble in ("dense", "rank-one", "single-response"):
        problem = sample_sensing(ensemble=ensemble, **made)
        units = torch.eye(24, dtype=torch.float64).reshape(24, 4, 6)
        eye = torch.eye(6, dtype=torch.float64)
        columns = [problem.operator.forward(lt.Factors(E[None], eye[None])) for E in units]
        rows = torch.stack(columns, -1)
        K = rows.mT @ rows / 70
        expected = 0.3**2 / 140 * torch.linalg.inv(K).diagonal(dim1=-2, dim2=-1).sum(-1)
        found = lt.predict.noise_floor(problem, noise_std=0.3, rank=4)
        worst = float(torch.linalg.cond(K).max())
        torch.testing.assert_close(
            found, expected, rtol=rounding(70, operations=4, condition=worst), atol=0
        )


def test_ranks_without_a_noise_floor() -> None:
    linear = lt.sample_linear(d=6, k=5, true_rank=2, samples=40)
    dense = sample_sensing(ensemble="dense", d=6, k=5, true_rank=2, measurements=90)
    for problem, rank, message in (
        (linear, 1, "at least r\\*.*got rank=1 with r\\*=2"),
        (linear, 6, "rank must satisfy"),
        (dense, 1, "at least r\\*"),
        (dense, 3, "no closed form there; predict.best_fit"),
    ):
        with pytest.raises(ValueError, match=message):
            lt.predict.noise_floor(problem, noise_std=0.1, rank=rank)


@pytest.mark.parametrize(
    ("ensemble", "m", "options"),
    [
        ("dense", 40, {}),
        ("rank-one", 40, {}),
        ("single-response", 40, {}),
        ("multi-response", 40, {}),
        ("completion", 12, {"replace": False}),
        ("completion", 40, {"replace": True}),
    ],
)
def test_one_step_errors_are_means_over_draws(ensemble: str, m: int, options: dict) -> None:
    """‖P_T(G − Δ)‖² over 600 draws of the operator at one Δ: to 4 standard errors."""
    count, sigma = 600, 0.1
    drawn = sample_sensing(
        ensemble=ensemble,
        d=6,
        k=5,
        true_rank=2,
        measurements=m,
        spectrum=(1.0, 0.6),
        seeds=range(count),
        **options,
    )
    rng = np.random.default_rng(6)
    U, V = (torch.from_numpy(np.linalg.qr(rng.standard_normal((n, 2)))[0]) for n in (6, 5))
    shift = lt.Factors(U * torch.tensor([1.0, 0.6]), V.mT)
    operator = drawn.operator
    noise = sigma * operator.label_scale * torch.from_numpy(rng.standard_normal((count, m)))
    labels = operator.forward(lt.Factors(shift.A[None], shift.B[None])) + noise
    miss = operator.adjoint(labels) / m - shift.dense()
    tangent = miss - (miss - U @ (U.mT @ miss)) @ (torch.eye(5).double() - V @ V.mT)
    squares = (tangent**2).sum((-2, -1)).numpy()
    problem = type(drawn)(operator, labels, shift)
    predicted = lt.predict.one_step_error(problem, noise_std=sigma)
    error = squares.std() / math.sqrt(count)
    assert abs(squares.mean() - float(predicted.reshape(-1)[0])) <= 4 * error


def test_what_cannot_be_said_is_refused() -> None:
    size = {"samples": 41, "d": 40, "k": 40, "noise_std": 0.1}
    symmetric = sample_sensing(ensemble="symmetric", d=5, k=5, true_rank=1, measurements=40)
    few = sample_sensing(ensemble="dense", d=5, k=5, true_rank=2, measurements=9)
    relu = lt.sample_relu_population(d=6, k=5, true_rank=1, relative_shift=0.1)
    population = lt.LinearProblem.population(shift=torch.eye(3))
    rows = [
        (ValueError, lambda: lt.predict.mean_full_floor(**size), "samples > d \\+ 1"),
        (ValueError, lambda: lt.predict.mean_noise_floor(rank=2, **size), "samples > d \\+ 1"),
        (ValueError, lambda: lt.predict.noise_floor(few, noise_std=-1), "noise_std must be"),
        (ValueError, lambda: lt.predict.one_step_error(symmetric), "'symmetric' ensemble"),
        (ValueError, lambda: lt.predict.noise_floor(population, noise_std=1), "samples"),
        (TypeError, lambda: lt.predict.noise_floor(relu, noise_std=1), "got ReLUPopulation"),
        (TypeError, lambda: lt.predict.one_step_error(relu), "got ReLUPopulation"),
    ]
    for kind, call, message in rows:
        with pytest.raises(kind, match=message):
            call()
    assert math.isinf(float(lt.predict.noise_floor(few, noise_std=0.1)))
    thin = lt.sample_linear(d=6, k=5, true_rank=1, samples=4)
    assert math.isinf(float(lt.predict.noise_floor(thin, noise_std=0.1)))


def test_what_formulas_do_not_hold_for_is_refused() -> None:
    """Noise, a covariance or another law that the problem itself states is not left out."""
    size = {"d": 6, "k": 5, "true_rank": 2, "samples": 40}
    noisy = lt.sample_linear(noise_std=0.5, **size)
    sensed = sample_sensing(ensemble="dense", d=6, k=5, true_rank=2, measurements=60, noise_std=0.5)
    signs, heavy = (lt.sample_linear(inputs=law, **size) for law in ("rademacher", "student"))
    own = lt.sample_linear(inputs=lambda rng, N, d: rng.integers(2, size=(N, d)) * 2.0 - 1, **size)
    labels = lt.LinearProblem.from_data(np.eye(6), labels=np.ones((6, 5)))
    start = lt.Factors(torch.ones(6, 2).double(), torch.ones(2, 5).double())
    for call, message in (
        (lambda: lt.predict.one_step_error(noisy), "noise_std must be given"),
        (lambda: lt.predict.one_step_error(sensed), "noise_std must be given"),
        *(
            (lambda law=law: lt.predict.one_step_error(law), "fourth_moment must be given")
            for law in (signs, heavy, own)
        ),
        (lambda: lt.predict.plateau(noisy), "pass rank=r"),
        (lambda: lt.predict.plateau(labels), "does not know"),
        (lambda: lt.predict.linearised_alignment(labels, start, 0.1, [0, 2]), "does not know"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    # With the σ given it is the error without noise, and σ² r(d + k − r)/N more.
    quiet = lt.sample_linear(**size)
    found = lt.predict.one_step_error(noisy, noise_std=0.5) - lt.predict.one_step_error(quiet)
    # Differences of sums of squares of Δ over N; and one such sum.
    wrong = rounding(30, operations=4, condition=10)
    assert float(found) == pytest.approx(0.25 * 2 * (6 + 5 - 2) / 40, rel=wrong)
    found = lt.predict.one_step_error(signs, fourth_moment=1)
    assert float(found) == pytest.approx(5 * 2 / 40, rel=wrong)


@pytest.mark.parametrize("of", ["risk", "error"])
def test_the_best_multiple_of_the_one_step_gradient(of: str) -> None:
    """Noisy labels at Σ ≠ I: the least of a parabola in γ, by a grid around what is predicted."""
    law = torch.tensor([2.0, 1.5, 1.0, 1.0, 0.6], dtype=torch.float64)
    problem = lt.sample_linear(
        d=5, k=4, true_rank=2, samples=30, noise_std=0.3, covariance=law, seeds=(0, 1, 2)
    )
    shift, G = problem.shift.dense().numpy(), problem.one_step_gradient().dense().numpy()
    weight = law.numpy()[:, None] ** (of == "risk")
    for rank in (1, 2, 4):
        U, S, Vh = np.linalg.svd(G, full_matrices=False)
        top = (U[..., :rank] * S[:, None, :rank]) @ Vh[:, :rank]
        found = lt.predict.best_gamma(problem, rank=rank, of=of).numpy()
        at = [np.sum(weight * (g[:, None, None] * top - shift) ** 2, (1, 2)) for g in
              (found - 0.1, found, found + 0.1)]  # fmt: skip
        # The two sides of a parabola's vertex agree: 0.1 of it moves them by a tenth of their size.
        assert at[0] == pytest.approx(at[2], rel=rounding(20, operations=40))
        assert (at[1] < at[0]).all()
    if of == "risk":
        one = lt.methods.lora_one(gamma=float(lt.predict.best_gamma(problem)[0]))
        A, B = one.init(problem, 2, (0, 1, 2)).trainable
        least = float(problem.risk(Factors(A, B))[0])
        plain = Factors(*lt.methods.lora_one().init(problem, 2, (0, 1, 2)).trainable)
        assert least < float(problem.risk(plain)[0])


def test_the_best_multiple_is_one_for_white_inputs() -> None:
    """G = Δ in the population; on dense measurements ⟨G_r, Δ⟩/‖G_r‖²."""
    shift = lt.sample_linear(d=6, k=5, true_rank=2, samples=20).shift
    white = lt.LinearProblem.population(shift=shift)
    assert float(lt.predict.best_gamma(white)) == pytest.approx(1, abs=rounding(6, operations=4))
    sensed = sample_sensing(ensemble="dense", d=6, k=5, true_rank=2, measurements=90)
    G = sensed.operator.adjoint(sensed.labels)[0].numpy() / 90
    U, S, Vh = np.linalg.svd(G)
    top = (U[:, :2] * S[:2]) @ Vh[:2]
    expected = np.sum(top * sensed.shift.dense()[0].numpy()) / np.sum(top**2)
    found = float(lt.predict.best_gamma(sensed))
    assert found == pytest.approx(expected, rel=rounding(90, operations=8))


@pytest.mark.parametrize("covariance", [None, (0.5, 1.0, 2.0)])
@pytest.mark.parametrize(("k", "samples"), [(2, 1), (2, 2), (4, 1)])
def test_no_floor_where_inputs_leave_directions_of_the_fit_unseen(covariance, k, samples) -> None:
    """N < r* too, where 0·∞ stood for columns that there are none of; 0 at σ = 0."""
    problem = lt.sample_linear(
        d=3, k=k, true_rank=2, samples=samples, seeds=(0,),
        covariance=None if covariance is None else np.array(covariance),
    )  # fmt: skip
    assert lt.predict.noise_floor(problem, noise_std=0.1).tolist() == [math.inf]
    assert lt.predict.noise_floor(problem, noise_std=0.0).tolist() == [0.0]
    X = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])  # an input that is always 0
    unseen = lt.LinearProblem.from_data(X, shift=np.eye(3)[:, 1:])
    assert float(lt.predict.noise_floor(unseen, noise_std=0.1)) == math.inf


def test_one_step_under_an_ill_conditioned_covariance() -> None:
    """Σ = diag(1, ε), Δ = I₂ beside a column of zeros: P = I, and (ΣΔ)^+ is not met."""
    small = 1e-9
    problem = lt.sample_linear(
        d=2, k=3, true_rank=2, samples=10, covariance=np.array([1.0, small]), seeds=(0,)
    )
    noise = lt.predict.one_step_error(problem, noise_std=1.0) - lt.predict.one_step_error(problem)
    # r tr Σ + (k − r)tr Σ, as I − P = 0; what is left of it is rounding over λ_min(ΣΔ).
    assert float(noise) == pytest.approx(3 * (1 + small) / 10, rel=rounding(4, condition=1 / small))
