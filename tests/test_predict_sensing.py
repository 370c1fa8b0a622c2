"""Local rates of any measurement operator, against the explicit matrix and against runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tolerance import printed, rounding

import loraone_theory as lt
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, RANK = 7, 6, 2
DOF = RANK * (D + K - RANK)
# Where Lanczos iterations stop, relative to the largest eigenvalue (predict/modes.py).
LANCZOS = 1e-8
CASES = [
    ("dense", 90, {}),
    ("dense", DOF - 4, {}),
    ("rank-one", 90, {}),
    ("single-response", 90, {}),
    ("multi-response", 15 * K, {}),
    ("completion", 36, {"replace": False}),
    ("completion", 120, {"replace": True}),
]


def explicit(problem: SensingProblem) -> np.ndarray:
    """The rows a_i of 𝒜 (m, d·k), from its values on unit matrices."""
    eye = torch.eye(D * K, dtype=torch.float64).reshape(-1, D, K)
    columns = [
        problem.operator.forward(lt.Factors(E[None], torch.eye(K, dtype=E.dtype)[None]))[0]
        for E in eye
    ]
    return torch.stack(columns, 1).numpy()


def inverse_root(M: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(M)
    return (vectors / np.sqrt(values)) @ vectors.T


def tangent_values(rows: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Squared singular values of (X, Y) ↦ 𝒜(XB + AY)/√m, the top r(d + k − r) of r(d + k)."""
    left, right = np.kron(np.eye(D), B.T), np.kron(A, np.eye(K))
    values = np.linalg.svd(rows @ np.hstack([left, right]))[1] / np.sqrt(len(rows))
    mu = np.zeros(RANK * (D + K))
    mu[: len(values)] = values**2
    return mu[:DOF]


@pytest.mark.parametrize("rule", ["gd", "preconditioned"])
@pytest.mark.parametrize(("ensemble", "m", "options"), CASES)
def test_modes_are_those_of_the_explicit_tangent_map(ensemble, m, options, rule, monkeypatch):
    problem = sample_sensing(
        ensemble=ensemble,
        d=D,
        k=K,
        true_rank=RANK,
        measurements=m,
        condition_number=4.0,
        seeds=[7],
        **options,
    )
    U, S, V = lt.linalg.truncated_svd(problem.shift, RANK)
    at = lt.Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)
    near = lt.predict.rates(problem, at, rule=rule)
    A, B = at.A[0].numpy(), at.B[0].numpy()
    if rule == "preconditioned":
        A, B = A @ inverse_root(A.T @ A), inverse_root(B @ B.T) @ B
    mu = tangent_values(explicit(problem), A, B)
    # Squares of singular values, from the eigenvalues of JᵀJ: eps of the top, times the size.
    close = {"abs": rounding(m * K + D * K, operations=4) * mu[0]}
    assert float(near.extremes[0, 1]) == pytest.approx(mu[0], **close)
    if m < DOF:
        assert float(near.extremes[0, 0]) == 0
        assert any("do not determine AB" in note for note in near.notes)
        assert float(near.moving[0]) == pytest.approx(mu[mu > 1e-10 * mu[0]][-1], **close)
        return
    assert float(near.extremes[0, 0]) == pytest.approx(mu[-1], **close)
    monkeypatch.setattr("loraone_theory.predict.modes.DENSE_SIZE", 5)
    lanczos = lt.predict.rates(problem, at, rule=rule)
    # The iteration stops at 1e-8 of the largest eigenvalue.
    torch.testing.assert_close(lanczos.extremes, near.extremes, rtol=0, atol=LANCZOS * mu[0])


def test_all_responses_are_the_linear_model() -> None:
    """Each row of X measured at every output: the μ of the linear problem with that X."""
    sensed = sample_sensing(
        ensemble="multi-response", d=D, k=K, true_rank=RANK, measurements=20 * K, seeds=[3]
    )
    rows = explicit(sensed).reshape(-1, D, K)
    m = len(rows)
    Sigma = np.einsum("ndk,nek->de", rows, rows) / m / K
    linear = lt.LinearProblem.from_data(
        np.sqrt(D) * np.linalg.cholesky(Sigma).T, shift=sensed.shift.dense()[0]
    )
    at = lt.predict.pair_solution(linear, rank=RANK)
    for rule in ("gd", "preconditioned"):
        there = lt.predict.rates(sensed, lt.Factors(at.A[None], at.B[None]), rule=rule).extremes
        here = lt.predict.rates(linear, at, rule=rule).extremes
        # GD: outputs off the row space of Δ have the modes of AAᵀ alone, which runs never excite.
        wrong = rounding(D * K, operations=4, condition=100) * float(here[1])
        assert float(there[0, 1]) == pytest.approx(float(here[1]), abs=wrong)
        assert float(there[0, 0]) <= float(here[0]) + wrong


@pytest.mark.parametrize("kappa", [1.0, 10.0])
@pytest.mark.parametrize("rule", ["gd", "preconditioned"])
def test_runs_contract_at_the_predicted_rate(rule: str, kappa: float) -> None:
    """A longhand loop from 1e-6 along the slowest mode, at η = 1/μ_max: to 1e-3 of 1 − rate.

    Second-order terms are of relative size 1e-6 times κ and the spread of the modes.
    """
    problem = sample_sensing(
        ensemble="dense",
        d=D,
        k=K,
        true_rank=RANK,
        measurements=110,
        condition_number=kappa,
        seeds=[7],
    )
    a = explicit(problem)
    U, S, V = (part[0].numpy() for part in lt.linalg.truncated_svd(problem.shift, RANK))
    A, B, T = U * np.sqrt(S), np.sqrt(S)[:, None] * V.T, (U * S) @ V.T
    at = lt.Factors(torch.from_numpy(A)[None], torch.from_numpy(B)[None])
    near = lt.predict.rates(problem, at, rule=rule)
    eta = 1 / float(near.extremes[0, 1])
    P = Q = np.eye(RANK)
    if rule == "preconditioned":
        P, Q = inverse_root(B @ B.T), inverse_root(A.T @ A)
    J = a @ np.hstack([np.kron(np.eye(D), (P @ B).T), np.kron(A @ Q, np.eye(K))])
    slow = np.linalg.svd(J)[2][DOF - 1]
    nudge = 1e-6
    A = A + nudge * slow[: A.size].reshape(A.shape) @ P
    B = B + nudge * Q @ slow[A.size :].reshape(B.shape)
    size = []
    for _ in range(41):
        E = A @ B - T
        size.append(np.linalg.norm(E))
        R = ((a @ E.ravel()) @ a).reshape(D, K) / len(a)
        gA, gB = R @ B.T, A.T @ R
        if rule == "preconditioned":
            gA, gB = gA @ np.linalg.inv(B @ B.T), np.linalg.inv(A.T @ A) @ gB
        A, B = A - eta * gA, B - eta * gB
    measured = (size[40] / size[20]) ** (1 / 20)
    predicted = float(near.rate(eta))
    # Terms of second order are of the size of the nudge over the least singular value of Δ; and
    # rounding, of the size of T over that of the error, over 20 steps.
    share = nudge / float(S[-1]) + rounding(len(a), operations=4) / size[40] / (1 - predicted)
    assert measured == pytest.approx(predicted, abs=10 * share * (1 - predicted))


def test_preconditioning_takes_the_condition_number_out_of_every_ensemble() -> None:
    for ensemble, m in (("dense", 90), ("rank-one", 90), ("completion", 120)):
        found = []
        for kappa in (1.0, 30.0):
            problem = sample_sensing(
                ensemble=ensemble,
                d=D,
                k=K,
                true_rank=RANK,
                measurements=m,
                seeds=[1],
                condition_number=kappa,
            )
            U, S, V = lt.linalg.truncated_svd(problem.shift, RANK)
            at = lt.Factors(U, S[..., None] * V.mT)  # any split: preconditioned GD sees no gauge
            found.append(lt.predict.rates(problem, at, rule="preconditioned").extremes)
        # Forms of m measurements; frames of a matrix of the larger condition number.
        wrong = rounding(m + D * K, operations=4, condition=1e3)
        torch.testing.assert_close(found[0], found[1], rtol=wrong, atol=wrong)


def test_noisy_labels_bend_the_valley() -> None:
    """At the least-squares fit of noisy labels μ are those of the full Hessian, by differences."""
    problem = sample_sensing(
        ensemble="dense", d=5, k=4, true_rank=1, measurements=40, noise_std=0.3, seeds=[2]
    )
    run = lt.simulate(problem, "lora-one", rank=1, learning_rate=0.3, steps=3000, record=("loss",))
    near = lt.predict.rates(problem, run.final)
    z0 = torch.cat([part.flatten() for part in run.final])

    def loss(z: torch.Tensor) -> torch.Tensor:
        return problem.loss(lt.Factors(z[:5].reshape(1, 5, 1), z[5:].reshape(1, 1, 4)))[0]

    H = torch.autograd.functional.hessian(loss, z0)
    values = torch.linalg.eigvalsh(H)
    values = values[values.abs() > 1e-9 * values[-1]]  # the gauge: one direction, at rounding
    assert len(values) == 5 + 4 - 1
    # At a minimum that the run has found to what its last step moves: J Eʰ adds that to H.
    wrong = rounding(200, operations=40) * float(values[-1])
    torch.testing.assert_close(near.extremes[0], values[[0, -1]], rtol=0, atol=wrong)


@pytest.mark.parametrize("k", [1, 6])
def test_rates_of_a_relu_problem_are_its_step_differenced(k: int) -> None:
    """(1 − multiplier)/η of one preconditioned step on N samples, by central differences.

    B is held to the row space of all outputs: every direction counts, as masks mix columns.
    """
    problem = lt.sample_relu(d=6, k=k, true_rank=1, samples=60, relative_shift=0.1, seeds=[0])
    near = lt.predict.relu_contraction(problem)
    U, S, V = lt.linalg.truncated_svd(problem.shift, 1)
    A, B = U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT
    z0, eta, h = torch.cat([A.flatten(), B.flatten()]), 0.1, 1e-7

    def step(z: torch.Tensor) -> torch.Tensor:
        A, B = z[:6].reshape(1, 6, 1), z[6:].reshape(1, 1, k)
        gA, gB = problem.gradients(lt.Factors(A, B))
        new = A - eta * gA / (B @ B.mT), B - eta * gB / (A.mT @ A)
        return torch.cat([part.flatten() for part in new])

    eye = torch.eye(len(z0), dtype=z0.dtype)
    J = torch.stack([(step(z0 + h * e) - step(z0 - h * e)) / (2 * h) for e in eye], 1).numpy()
    mu = (1 - np.linalg.eigvals(J).real) / eta
    mu = np.sort(mu)[1:]  # the gauge, at rounding eps/h/eta = 1e-8
    # Rounding eps/h/eta of sums over N, at h = 1e-7.
    np.testing.assert_allclose(near.extremes[0].numpy(), mu[[0, -1]], rtol=rounding(40) / h / eta)


def test_a_single_output_is_slower_than_the_spread_formula() -> None:
    """k = 1, N = 16 d, η = ½: between the spread and the concentrated formula, and past 7/8."""
    problem = lt.sample_relu(
        d=50, k=1, true_rank=1, samples=800, relative_shift=0.1, seeds=range(4)
    )
    rate = lt.predict.relu_contraction(problem).rate(0.5)
    spread = lt.predict.relu.finite_rate(0.5, samples=800, d=50)
    alone = lt.predict.relu.finite_rate(0.5, samples=800, d=50, concentrated=True)
    assert spread == pytest.approx(0.859, abs=printed(3))
    assert alone == pytest.approx(0.8955, abs=printed(4))
    assert bool((rate > 0.875).all())
    # The least eigenvalue of 25 d samples fluctuates about the edge by a few d^(-2/3) = 0.07.
    assert abs(float(rate.mean()) - alone) < 0.2 * (1 - alone)
    run = lt.simulate(
        problem, "lora-one-preconditioned", rank=1, learning_rate=0.5, steps=200, record=("error",)
    )
    inside = run["error"].numpy()
    for i, curve in enumerate(inside.T):
        first, last = (int(np.argmax(curve < x * curve[0])) for x in (1e-5, 1e-9))
        measured = (curve[last] / curve[first]) ** (1 / (last - first))
        # Terms of second order, of the size of the relative error that the window starts from, and
        # a last step that is cut.
        assert measured <= float(rate[i]) * (1 + 1 / (last - first) ** 1.5)
        assert measured > 0.875 - 0.01
