"""Floors and rates of noisy measurements: alternating least squares written out, and runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.predict.compare import compare
from loraone_theory.problems.sensing.problem import SensingProblem

D, K, RANK, SIGMA = 7, 6, 2, 0.05
CASES = [
    ("dense", 150, {}),
    ("rank-one", 200, {}),
    ("single-response", 200, {}),
    ("multi-response", 30 * K, {}),
    ("completion", 40, {"replace": False}),
    ("completion", 150, {"replace": True}),
]


def draw(ensemble: str, m: int, options: dict, **more: object) -> SensingProblem:
    sizes = {"d": D, "k": K, "true_rank": RANK, "measurements": m, "noise_std": SIGMA}
    return lt.sample_sensing(ensemble=ensemble, **(sizes | options | more))


def rows_of(problem: SensingProblem) -> np.ndarray:
    """𝒜 as a matrix (m, d·k), from its values on unit matrices."""
    d, k = problem.d, problem.k
    units = torch.eye(d * k, dtype=torch.float64).reshape(-1, d, k)
    eye = torch.eye(k, dtype=torch.float64)[None]
    found = [problem.operator.forward(lt.Factors(E[None], eye))[0] for E in units]
    return torch.stack(found, 1).numpy()


def alternating(rows: np.ndarray, y: np.ndarray, B: np.ndarray, sweeps: int = 150) -> float:
    """Least ‖𝒜(AB) − y‖²/2m by least squares in A, then in B, from the given B (r, k)."""
    k = B.shape[1]
    a = rows.reshape(len(y), -1, k)
    for _ in range(sweeps):
        A = np.linalg.lstsq((a @ B.T).reshape(len(y), -1), y, rcond=None)[0].reshape(-1, len(B))
        A = np.linalg.qr(A)[0]
        left = np.einsum("dr,mdk->mrk", A, a).reshape(len(y), -1)
        B = np.linalg.lstsq(left, y, rcond=None)[0].reshape(-1, k)
    miss = left @ B.ravel() - y
    return float(miss @ miss) / (2 * len(y))


@pytest.mark.parametrize(("ensemble", "m", "options"), CASES)
@pytest.mark.parametrize("rank", [1, RANK])
def test_floors_are_those_of_alternating_least_squares(
    ensemble: str, m: int, options: dict, rank: int
) -> None:
    problem = draw(ensemble, m, options, spectrum=(1.0, 0.2), seeds=(3,))
    assert problem.shift is not None
    V = np.linalg.svd(problem.shift.dense()[0].numpy())[2][:rank]
    found = float(lt.predict.measured_floor(problem, "lora", rank=rank))
    expected = alternating(rows_of(problem), problem.labels[0].numpy(), V)
    # Both lie in the minimum: what an iterate is off enters squared, sums over m are left.
    assert found == pytest.approx(expected, rel=rounding(m, operations=10))


@pytest.mark.parametrize(("ensemble", "m", "options"), CASES)
def test_floors_beyond_the_true_rank(ensemble: str, m: int, options: dict) -> None:
    """r = r* + 1: none of alternating least squares from four random starts ends lower."""
    problem = draw(ensemble, m, options, spectrum=(1.0, 0.2), seeds=(5,))
    rows, y, rng = rows_of(problem), problem.labels[0].numpy(), np.random.default_rng(0)
    starts = [np.linalg.qr(rng.standard_normal((K, 3)))[0].T for _ in range(4)]
    found = float(lt.predict.measured_floor(problem, "lora", rank=3))
    least = min(alternating(rows, y, B, sweeps=60) for B in starts)
    assert found <= least * (1 + rounding(m, operations=10))
    fit = lt.predict.best_fit(problem, 3)
    assert float(fit.loss[0]) == found
    M = fit.at.dense()[0].numpy()
    miss = rows @ M.ravel() - y
    assert float(miss @ miss) / (2 * m) == pytest.approx(found, rel=rounding(m, operations=10))
    # It is stationary: its gradient, of σ/√m's size off its tangent space, is 0 on it.
    G = (rows.T @ miss).reshape(D, K) / m
    U, S, Vt = np.linalg.svd(M)
    along = max(np.abs(U[:, :3].T @ G).max(), np.abs(G @ Vt[:3].T).max())
    # The loss is known to m·eps of itself, and is a square over the tangent space there.
    assert along <= (rounding(m, operations=10) * found) ** 0.5 * np.linalg.norm(rows, 2) / m**0.5
    assert S[2] > 0
    assert np.linalg.norm(G) > 0


@pytest.mark.parametrize("rank", [RANK, 3])
def test_the_smallest_noise_has_a_floor_too(rank: int) -> None:
    """A loss of 1e-13 is known to the rounding of labels of size one times its root."""
    problem = draw("dense", 150, {}, noise_std=1e-6, seeds=(3,))
    V = np.linalg.svd(problem.shift.dense()[0].numpy())[2][:rank]
    y = problem.labels[0].numpy()
    expected = alternating(rows_of(problem), y, V)
    found = float(lt.predict.best_fit(problem, rank).loss)
    size = float(y @ y) / 300
    wrong = rounding(150, operations=10, condition=(size / expected) ** 0.5)
    if rank == RANK:
        assert found == pytest.approx(expected, rel=wrong)
    else:  # the other may have ended in another minimum
        assert 0 < found <= expected * (1 + wrong)


def test_a_fit_of_fewer_measurements_than_it_has_dimensions() -> None:
    """14 entries, some of them twice: what a fit of full rank leaves is the spread of those.

    A second step from there is rounding over a curvature of 0, and is not taken.
    """
    problem = lt.sample_sensing(
        ensemble="completion", d=5, k=4, true_rank=1, measurements=14, noise_std=0.1, seeds=(0,)
    )
    fit = lt.predict.best_fit(problem, 4)
    rows, y = rows_of(problem), problem.labels[0].numpy()
    miss = rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y
    least = float(miss @ miss) / 28
    # A square of what is left of labels of size one.
    wrong = rounding(14, operations=10, condition=(float(y @ y) / 28 / least) ** 0.5)
    assert fit.loss.tolist() == pytest.approx([least], rel=wrong)
    assert problem.loss(fit.at).tolist() == pytest.approx([least], rel=wrong)


def test_a_floor_below_the_true_rank_where_singular_values_are_equal() -> None:
    """From the best part of T, which is arbitrary, steps end 11 % above the least there."""
    problem = lt.sample_sensing(
        ensemble="dense", d=5, k=4, true_rank=2, measurements=60, noise_std=1e-6, seeds=(0,)
    )
    rows, y, rng = rows_of(problem), problem.labels[0].numpy(), np.random.default_rng(0)
    starts = [np.linalg.qr(rng.standard_normal((4, 1)))[0].T for _ in range(4)]
    least = min(alternating(rows, y, B) for B in starts)
    found = float(lt.predict.best_fit(problem, 1).loss)
    assert found == pytest.approx(least, rel=rounding(60, operations=10))


@pytest.mark.parametrize("seed", [7, 13, 24, 34])
def test_a_floor_below_the_true_rank_by_a_later_direction(seed: int) -> None:
    """From the best parts of T and of G steps end 4 to 6 % above the least of these."""
    problem = lt.sample_sensing(
        ensemble="dense", d=6, k=5, true_rank=3, measurements=60, seeds=(seed,)
    )
    rows, y, rng = rows_of(problem), problem.labels[0].numpy(), np.random.default_rng(0)
    starts = [np.linalg.qr(rng.standard_normal((5, 1)))[0].T for _ in range(12)]
    least = min(alternating(rows, y, B) for B in starts)
    found = float(lt.predict.best_fit(problem, 1).loss)
    assert found == pytest.approx(least, rel=rounding(60, operations=10))


def test_multi_response_floors_are_those_of_a_singular_value_decomposition() -> None:
    """½Σ_{i>r}σ_i²(Ỹ) + c, by QR of X, for every rank on both sides of r*."""
    problem = draw("multi-response", 30 * K, {}, seeds=(1,))
    X = problem.operator.X.numpy()
    Y = problem.labels[0].numpy().reshape(30, K) / K**0.5
    inside = np.linalg.qr(X[0])[0].T @ Y
    values = np.linalg.svd(inside, compute_uv=False)
    beyond = np.sum(Y**2) - np.sum(inside**2)
    for rank in (1, 3, 6):
        expected = (np.sum(values[rank:] ** 2) + beyond) / 60
        found = float(lt.predict.measured_floor(problem, "lora", rank=rank))
        # The difference of ‖Y‖² and a part of it loses their ratio to what is left.
        wrong = rounding(180, operations=10, condition=np.sum(Y**2) / 60 / expected)
        assert found == pytest.approx(expected, rel=wrong)


@pytest.mark.parametrize(("ensemble", "m", "options"), CASES)
def test_full_fine_tuning_is_least_squares(ensemble: str, m: int, options: dict) -> None:
    problem = draw(ensemble, m, options)
    rows, y = rows_of(problem), problem.labels[0].numpy()
    miss = rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y
    found = float(lt.predict.measured_floor(problem, "full", rank=RANK))
    # What is left of ‖y‖²/2m; where nothing is, squares of rounding are.
    least = rounding(m) * float(y @ y) / (2 * m)
    assert found == pytest.approx(
        float(miss @ miss) / (2 * m), rel=rounding(m, operations=10), abs=least
    )


def test_mean_of_dense_floors() -> None:
    """E min ‖𝒜(AB) − y‖²/2m = σ²(m − dof)/2m to first order, over 40 draws."""
    m, dof = 150, RANK * (D + K - RANK)
    floors = lt.predict.measured_floor(draw("dense", m, {}, seeds=range(40)), "lora", rank=RANK)
    expected = SIGMA**2 * (m - dof) / (2 * m)
    # A χ² of m − dof has the relative deviation √(2/(m − dof)); five of those of the mean.
    assert float(floors.mean()) == pytest.approx(expected, rel=5 * (2 / (m - dof) / 40) ** 0.5)


def test_exact_labels_have_floors_of_zero_and_what_is_unknown_has_none() -> None:
    exact = lt.sample_sensing(ensemble="dense", d=D, k=K, true_rank=RANK, measurements=150)
    noisy = draw("dense", 150, {})
    floor = lt.predict.measured_floor
    for name in ("full", "lora", "lora-one-preconditioned"):
        assert float(floor(exact, name, rank=RANK)) == 0
    assert float(floor(exact, "lora", rank=4)) == 0
    for method, rank in (("lora-ga", RANK), ("adalora", RANK), ("lora-ga", 4)):
        assert math.isnan(float(floor(noisy, method, rank=rank)))
    blind = lt.SensingProblem.from_data(noisy.operator, noisy.labels)
    assert math.isnan(float(floor(blind, "lora", rank=RANK)))
    # Below r* the best fit of exact labels leaves a loss too.
    assert float(floor(exact, "lora", rank=1)) > 0


@pytest.mark.parametrize(("ensemble", "m", "options"), CASES)
def test_comparisons_predict_where_noisy_runs_end_and_how_fast(
    ensemble: str, m: int, options: dict
) -> None:
    row = compare(draw(ensemble, m, options), rank=RANK, steps=400, names=["lora-one"]).rows[0]
    assert row.chosen_by == "prediction"
    assert row.status == "converged"
    assert row.notes == ()
    assert row.reached == pytest.approx(row.floor, rel=rounding(m, operations=10))
    # From t = 0 on every mode has a share, so that the slowest is an upper end; and half-way to
    # TARGET = 1e-6, or ln(1e3)/(1 − rate) steps, prefactors of that order are not over.
    assert (row.rate <= row.predicted_rate + 0.1 * (1 - row.predicted_rate)).all()


@pytest.mark.parametrize(("rank", "sigma"), [(3, SIGMA), (1, 0.0)])
def test_rates_of_other_ranks_are_those_of_runs(rank: int, sigma: float) -> None:
    """Noisy labels at r > r*, exact ones at r < r*: preconditioned, to the fit's own loss."""
    problem = draw("dense", 150, {}, noise_std=sigma, spectrum=(1.0, 0.2))
    near = lt.predict.measured_contraction(problem, "lora-one-preconditioned", rank=rank)
    eta = 0.5 * float(near.best_step)
    # From beside the fit: beyond r* a run from elsewhere can end in another minimum.
    at, rng = lt.predict.best_fit(problem, rank).at, np.random.default_rng(0)
    start = [P + 0.02 * torch.from_numpy(rng.standard_normal(P.shape)) * P.norm() for P in at]
    run = lt.simulate(
        problem, "lora-one-preconditioned", rank=rank, learning_rate=eta, steps=900,
        initial=lt.Factors(*start),
    )  # fmt: skip
    floor = float(lt.predict.measured_floor(problem, "lora-one-preconditioned", rank=rank))
    loss = run["loss"][:, 0].numpy()
    assert loss[-1] == pytest.approx(floor, rel=rounding(150, operations=10))
    excess = loss - floor
    # Between 1e-7 and 1e-11 of the first: rounding of the loss is 1e-14 of it.
    start, end = (int(np.argmax(excess < share * excess[0])) for share in (1e-7, 1e-11))
    measured = (excess[end] / excess[start]) ** (0.5 / (end - start))
    rate = float(near.rate(eta))
    assert measured == pytest.approx(rate, abs=0.05 * (1 - rate))


def test_noisy_rates_are_those_of_runs() -> None:
    """The slope of √(L_t − floor) of a long run, with the bend of the noise in the Hessian."""
    problem = draw("dense", 60, {}, noise_std=0.4)
    near = lt.predict.measured_contraction(problem, "lora-one", rank=RANK)
    eta = 0.5 * float(near.best_step)
    run = lt.simulate(problem, "lora-one", rank=RANK, learning_rate=eta, steps=600)
    floor = float(lt.predict.measured_floor(problem, "lora-one", rank=RANK))
    excess = (run["loss"][:, 0] - floor).numpy()
    # Between 1e-7 and 1e-11 of the first: rounding of the loss is 1e-14 of it.
    start, end = (int(np.argmax(excess < share * excess[0])) for share in (1e-7, 1e-11))
    measured = (excess[end] / excess[start]) ** (0.5 / (end - start))
    rate = float(near.rate(eta))
    assert measured == pytest.approx(rate, abs=0.05 * (1 - rate))
    # Without noise in the Hessian, at Δ, the rate is another one.
    exact = lt.SensingProblem.from_data(
        problem.operator, problem.operator.forward(problem.shift), shift=problem.shift
    )
    plain = lt.predict.measured_contraction(exact, "lora-one", rank=RANK)
    assert abs(measured - rate) < 0.2 * abs(float(plain.rate(eta)) - rate)
