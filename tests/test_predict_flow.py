"""Gradient flow in closed form, against an integrator and against descent written out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import torch
from tolerance import printed, rounding

import loraone_theory as lt
from loraone_theory.predict import flow


def integrate(A: np.ndarray, B: np.ndarray, T: np.ndarray, times) -> list[np.ndarray]:
    """E of A' = −EBᵀ, B' = −AᵀE by DOP853 at rtol 1e-11."""
    shape, size = A.shape, A.size

    def field(_: float, z: np.ndarray) -> np.ndarray:
        A, B = z[:size].reshape(shape), z[size:].reshape(B0.shape)
        E = A @ B - T
        return np.concatenate([-(E @ B.T).ravel(), -(A.T @ E).ravel()])

    B0 = B
    found = scipy.integrate.solve_ivp(
        field,
        (0, max(times)),
        np.concatenate([A.ravel(), B.ravel()]),
        method="DOP853",
        rtol=RTOL,
        atol=ATOL,
        t_eval=times,
    )
    return [z[:size].reshape(shape) @ z[size:].reshape(B0.shape) - T for z in found.y.T]


# Of the integrator.
RTOL = 1e-11
ATOL = RTOL / 1000


def target(rng: np.random.Generator, d: int, k: int, lam: np.ndarray):
    U, V = (np.linalg.qr(rng.standard_normal((n, len(lam))))[0] for n in (d, k))
    return U, V, (U * lam) @ V.T


@pytest.mark.parametrize("rho", [0.05, 1.0, 1.8])
def test_a_balanced_start_keeps_to_its_pairs(rho: float) -> None:
    lam = np.array([1.0, 0.7, 0.2])
    U, V, T = target(np.random.default_rng(0), 9, 7, lam)
    root = np.sqrt(rho * lam)
    times = [0.5, 3.0, 12.0]
    errors = integrate(U * root, root[:, None] * V.T, T, times)
    found = flow.balanced(torch.from_numpy(lam), rho, times).numpy()
    for E, epsilon in zip(errors, found, strict=True):
        # The integrator's tolerance a step, over some 100 of them: errors contract, or grow by no
        # more than E does.
        np.testing.assert_allclose(E, -(U * (lam * epsilon)) @ V.T, rtol=0, atol=100 * RTOL)


@pytest.mark.parametrize("h", [0.1, 0.5, 0.9])
def test_descent_on_a_pair_is_its_recursion(h: float) -> None:
    """σ⁺ = σ(1 + h(1 − σ))² stepped in plain numbers, 300 steps."""
    found = flow.balanced_descent(h, 0.7, 300).numpy()
    sigma = [0.3]
    for _ in range(300):
        sigma.append(sigma[-1] * (1 + h * (1 - sigma[-1])) ** 2)
    # σ loses the digits of ε below eps; a stable recursion forgets its rounding, five operations a
    # step, in the few steps that it takes to contract.
    np.testing.assert_allclose(found, 1 - np.array(sigma), rtol=0, atol=rounding(1, operations=20))
    if h <= 0.5:
        assert (found >= 0).all()
        assert (np.diff(found) <= 0).all()
    else:
        tail = found[np.abs(found) > 1e-100][-6:]
        assert (tail[1:] * tail[:-1] < 0).all()


def test_past_the_edge_descent_ends_on_a_cycle() -> None:
    """h = 1.2: |ε| alternates between 0.465 and 0.299."""
    found = np.abs(flow.balanced_descent(1.2, 0.5, 2001).numpy()[-2:])
    np.testing.assert_allclose(np.sort(found), [0.299, 0.465], rtol=0, atol=printed(3))


def test_recursions_are_those_of_runs() -> None:
    """Spectral-init with γ = ρ at Σ̂ = I: `simulate` on three pairs at once."""
    lam = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    _, _, T = target(np.random.default_rng(1), 8, 6, lam.numpy())
    problem = lt.LinearProblem.population(shift=torch.from_numpy(T))
    for name, rule in (("lora-one", "gd"), ("lora-one-preconditioned", "preconditioned")):
        method = lt.METHODS[name](gamma=0.4)
        run = lt.simulate(
            problem, method, rank=3, learning_rate=0.3, steps=12, record=("error",), seeds=[0]
        )
        if rule == "gd":
            epsilon = flow.balanced_descent(0.3 * lam, 0.6, 12)
        else:
            epsilon = 1 - flow.preconditioned_descent(0.3, 0.4, 12)[:, None].expand(-1, 3)
        expected = torch.linalg.vector_norm(lam * epsilon, dim=-1)
        # 12 steps of four products over d or k, and an inverse at the condition number of Δ.
        allowed = rounding(12, operations=4 * 12, condition=10)
        torch.testing.assert_close(run["error"].reshape(-1), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("rank", [4, 6])
@pytest.mark.parametrize("alpha", [0.1, 1e-3, 1e-5])
def test_lora_init_flow_against_an_integrator(alpha: float, rank: int) -> None:
    """d = k = 30, λ = 1, .7, .4, .1: within the tolerance of DOP853, t <= 100."""
    rng = np.random.default_rng(3)
    _, _, T = target(rng, 30, 30, np.array([1.0, 0.7, 0.4, 0.1]))
    A = alpha * np.linalg.qr(rng.standard_normal((30, rank)))[0]
    times = [1.0, 10.0, 30.0, 100.0]
    errors = integrate(A, np.zeros((rank, 30)), T, times)
    found = flow.lora_init(torch.from_numpy(T), torch.from_numpy(A), times).dense().numpy()
    for E, closed in zip(errors, found, strict=True):
        # Relative ones of some 100 steps; absolute ones grow with a start of size alpha.
        np.testing.assert_allclose(closed, E, rtol=0, atol=100 * (RTOL + ATOL / alpha))


def test_a_start_far_below_rounding_goes_as_any_other() -> None:
    """At α = 1e-9 the part of E outside span(U) is A_pN⁻¹aᵀS, with N and S by longhand."""
    rng, alpha, lam = np.random.default_rng(6), 1e-9, np.array([1.0, 0.6])
    U, V, T = target(rng, 7, 5, lam)
    A = alpha * np.linalg.qr(rng.standard_normal((7, 3)))[0]
    times = [40.0, 60.0]  # when both parts of E are of one size
    found = flow.lora_init(torch.from_numpy(T), torch.from_numpy(A), times).dense().numpy()
    a, outside = U.T @ A, A - U @ (U.T @ A)
    for t, E in zip(times, found, strict=True):
        # δ = α² = 1e-18 is nothing beside λ, and so is (e^{δt} − 1)A_pᵀA_p/δ beside I.
        x = np.exp(-2 * lam * t)
        g = (1 - x**2) / (4 * lam)
        middle = np.diag(x / g) + a @ a.T
        S = np.linalg.solve(middle, np.diag(np.exp(-lam * t) * (1 - x) / (2 * g)))
        across = outside @ a.T @ S
        # Of exponentials of −120 at most.
        kappa = np.linalg.cond(middle)
        allowed = rounding(7, operations=8, condition=120 * kappa) * np.linalg.norm(E)
        assert allowed < 0.01 * np.linalg.norm(across)
        np.testing.assert_allclose((E - U @ (U.T @ E)) @ V, across, rtol=0, atol=allowed)


def test_descent_approaches_the_flow_in_proportion_to_its_step() -> None:
    """The distance at t = 20 halves with η, to 10 %."""
    rng = np.random.default_rng(4)
    _, _, T = target(rng, 12, 10, np.array([1.0, 0.5]))
    A = 0.1 * np.linalg.qr(rng.standard_normal((12, 3)))[0]
    problem = lt.LinearProblem.population(shift=torch.from_numpy(T))
    exact = flow.lora_init(torch.from_numpy(T), torch.from_numpy(A), [10.0]).dense()[0]
    initial = lt.Factors(torch.from_numpy(A), torch.zeros(3, 10, dtype=torch.float64))
    distance = []
    for eta in (0.05, 0.025, 0.0125):
        run = lt.simulate(
            problem,
            "lora",
            rank=3,
            learning_rate=eta,
            steps=round(10 / eta),
            initial=initial,
            record=("loss",),
        )
        E = run.final.dense().reshape(12, 10) - torch.from_numpy(T)
        distance.append(float(torch.linalg.matrix_norm(E - exact)))
    ratios = np.divide(distance[:-1], distance[1:])
    np.testing.assert_allclose(ratios, 2, rtol=0.1)


def test_late_times_neither_overflow_nor_lose_digits() -> None:
    """Finite up to δt = 1000, and down to ‖E‖ = 1e-116 the decay is e^{−2wt} to six digits."""
    shift = torch.eye(5, dtype=torch.float64)[:, :2] @ torch.eye(2, 4, dtype=torch.float64)
    A = torch.eye(5, 3, dtype=torch.float64)
    found = flow.lora_init(shift, A, [1.0, 60.0, 120.0, 1000.0]).dense()
    norms = torch.linalg.matrix_norm(found)
    assert torch.isfinite(found).all()
    w = (1 + 0.25) ** 0.5
    slope = (norms[2] / norms[1]).log() / 60
    # UᵀEV decays as e^{−wt}c with c → e^{−wt}: twice w, and the rest is zero (A₀ on U, or off V).
    # A logarithm of e^{−2w·60} and what e^{−2wt} still corrects at t = 60.
    assert float(slope) == pytest.approx(-2 * w, rel=rounding(5, operations=4 * 60))


def test_bad_arguments() -> None:
    one, T = torch.ones(1), torch.eye(3, dtype=torch.float64)
    rows = [
        (lambda: flow.balanced(-one, 0.5, [1.0]), "spectrum must be > 0"),
        (lambda: flow.balanced(one, 0.0, [1.0]), "start must be > 0"),
        (lambda: flow.balanced(one, 0.5, [-1.0]), "times must be finite and >= 0"),
        (lambda: flow.balanced_descent(0.0, 0.5, 3), "rate must be > 0"),
        (lambda: flow.balanced_descent(0.1, 0.5, -3), "steps must be >= 0"),
        (lambda: flow.preconditioned_descent(0.1, -0.5, 3), "start must be > 0"),
        (lambda: flow.lora_init(T, T[:, :2], [1.0]), "r >= rank"),
        (lambda: flow.lora_init(T, 0 * T, [1.0]), "must be > 0"),
        (lambda: flow.lora_init(T, T, [0.0]), "leave 0 out"),
    ]
    for call, message in rows:
        with pytest.raises(ValueError, match=message):
            call()
